//! The bearer of a request: its shape is checked, it is hashed, and only the hash goes on.

use http::header::AUTHORIZATION;
use http::{HeaderMap, Uri};
use mcp_model::admission::Denial;
use mcp_model::token::{PlainToken, SESSION_PREFIX, TOKEN_PREFIX, TokenHash};

/// Reads exactly one `Authorization: Bearer mcpctl_pat_...`. Anything else is refused without a look-up: none, two, another
/// scheme, a session bearer, another shape. A bearer in the query is refused even beside a good header: it has been written
/// to logs on its way here, and its holder should learn that.
pub(crate) fn read(headers: &HeaderMap, uri: &Uri) -> Result<TokenHash, Denial> {
    if uri
        .query()
        .is_some_and(|query| query.contains(TOKEN_PREFIX) || query.contains(SESSION_PREFIX))
    {
        return Err(Denial::NoBearer);
    }
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Denial::NoBearer);
    };
    let text = value.to_str().map_err(|_| Denial::NoBearer)?;
    let (scheme, bearer) = text.split_once(' ').ok_or(Denial::NoBearer)?;
    let bearer = bearer.trim_matches(' ');
    if !scheme.eq_ignore_ascii_case("bearer") || !PlainToken::has_shape(bearer) {
        return Err(Denial::NoBearer);
    }
    Ok(TokenHash::of(bearer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn exactly_one_bearer_of_a_tokens_shape_is_read() {
        let token = PlainToken::from_bytes(&[7; 32]);
        let good = format!("Bearer {}", token.expose());
        let session = good.replace(TOKEN_PREFIX, SESSION_PREFIX);
        let read = |values: &[&str], uri: &str| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            super::read(&headers, &uri.parse().unwrap())
        };
        assert_eq!(read(&[&good], "/mcp"), Ok(token.hash()));
        assert_eq!(read(&[&good.replace("Bearer", "bearer")], "/mcp?x=1"), Ok(token.hash()));
        let query = format!("/mcp?access_token={}", token.expose());
        let refused: [(&[&str], &str); 9] = [
            (&[], "/mcp"),
            (&[&good, &good], "/mcp"),
            (&[&session], "/mcp"),
            (&[&good[7..]], "/mcp"),
            (&[&good.replace("Bearer", "Basic")], "/mcp"),
            (&[&good[..40]], "/mcp"),
            (&["Bearer"], "/mcp"),
            (&[], &query),
            (&[&good], &query),
        ];
        for (values, uri) in refused {
            assert_eq!(read(values, uri), Err(Denial::NoBearer), "{values:?} {uri}");
        }
    }
}
