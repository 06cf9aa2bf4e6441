//! The bearer of a request: its shape is checked, it is hashed, and only the hash goes on.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Uri};
use mcp_model::admission::Denial;
use mcp_model::token::{PlainToken, SESSION_PREFIX, TOKEN_PREFIX, TokenHash};
use zeroize::Zeroizing;

/// The longest value of an `Authorization: Basic` that is looked into, in bytes.
const BASIC_BYTES_MAX: usize = 512;

/// The same, or a token as the password of HTTP Basic: for clients that take a URL and send no headers of their own. The caller sees
/// to it that this is asked at paths only where a project may allow it.
pub(crate) fn read_or_basic(headers: &HeaderMap, uri: &Uri) -> Result<TokenHash, Denial> {
    let read = read(headers, uri);
    let Some(value) = headers.get(AUTHORIZATION).filter(|_| read.is_err()) else {
        return read;
    };
    let single = headers.get_all(AUTHORIZATION).iter().count() == 1;
    let text = value.to_str().map_err(|_| Denial::NoBearer)?;
    let (scheme, coded) = text.split_once(' ').ok_or(Denial::NoBearer)?;
    if !single || names_a_bearer(uri) || !scheme.eq_ignore_ascii_case("basic") || coded.len() > BASIC_BYTES_MAX {
        return Err(Denial::NoBearer);
    }
    let decoded = STANDARD.decode(coded.trim_matches(' ')).map_err(|_| Denial::NoBearer)?;
    let decoded = Zeroizing::new(decoded);
    let pair = std::str::from_utf8(&decoded).map_err(|_| Denial::NoBearer)?;
    match pair.split_once(':') {
        Some((_user, password)) if PlainToken::has_shape(password) => Ok(TokenHash::of(password)),
        Some(_) | None => Err(Denial::NoBearer),
    }
}

/// Whether the query holds a bearer: it has been written to logs on its way here.
fn names_a_bearer(uri: &Uri) -> bool {
    uri.query()
        .is_some_and(|query| query.contains(TOKEN_PREFIX) || query.contains(SESSION_PREFIX))
}

/// Reads exactly one `Authorization: Bearer mcpctl_pat_...`. Anything else is refused without a look-up: none, two, another
/// scheme, a session bearer, another shape. A bearer in the query is refused even beside a good header: it has been written
/// to logs on its way here, and its holder should learn that.
pub(crate) fn read(headers: &HeaderMap, uri: &Uri) -> Result<TokenHash, Denial> {
    if names_a_bearer(uri) {
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

    #[test]
    fn a_token_may_be_the_password_of_basic_where_that_is_asked() {
        let token = PlainToken::from_bytes(&[7; 32]);
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        let read = |values: &[&str], uri: &str| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            read_or_basic(&headers, &uri.parse().unwrap())
        };
        let plain = token.expose();
        let good = basic(&format!("token:{plain}"));
        assert_eq!(read(&[&good], "/projects/demo/sse"), Ok(token.hash()));
        assert_eq!(read(&[&basic(&format!(":{plain}"))], "/"), Ok(token.hash()));
        assert_eq!(read(&[&good.replace("Basic", "bAsIc")], "/"), Ok(token.hash()));
        assert_eq!(read(&[&format!("Bearer {plain}")], "/"), Ok(token.hash()));
        let query = format!("/?token={plain}");
        let long = basic(&format!("{}:{plain}", "u".repeat(600)));
        let refused: [(&[&str], &str); 8] = [
            (&[], "/"),
            (&[&good, &good], "/"),
            (&[&good], &query),
            (&[&basic(plain)], "/"),
            (&[&basic(&format!("{plain}:"))], "/"),
            (
                &[&basic(&format!(
                    "token:{}",
                    plain.replace(TOKEN_PREFIX, SESSION_PREFIX)
                ))],
                "/",
            ),
            (&["Basic !!!"], "/"),
            (&[&long], "/"),
        ];
        for (values, uri) in refused {
            assert_eq!(read(values, uri), Err(Denial::NoBearer), "{values:?} {uri}");
        }
    }
}
