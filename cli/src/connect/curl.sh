curl -sS "{{url}}" -H @- -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \
    --data '{"jsonrpc":"2.0","id":1,"method":"tools/list"}' <<<"Authorization: Bearer $MCPCTL_TOKEN"
