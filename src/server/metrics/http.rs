//! The little of HTTP that a scrape needs: one request for one resource, and the connection is closed (RFC 9112).

use chrono::{DateTime, Utc};
use httparse::{EMPTY_HEADER, Error, Request, Status};

/// The longest request head that is taken, in bytes.
pub const MAX_REQUEST: usize = 8 * 1024;
/// The most fields that it may have.
const MAX_FIELDS: usize = 64;

/// What the bytes that have come ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Nobody can say yet.
    Incomplete,
    /// The metrics, or only the head of that answer.
    Metrics {
        /// Whether the answer has a body.
        body: bool,
    },
    /// What is not given.
    Refused(Refusal),
}

/// Why it is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is no request.
    BadRequest,
    /// There is no such resource.
    NotFound,
    /// It is only there to be read.
    MethodNotAllowed,
    /// The head is longer than [`MAX_REQUEST`], or has too many fields.
    TooLarge,
    /// The storage service does not answer.
    Unavailable,
}

impl Refusal {
    /// Its status code and reason phrase.
    #[must_use]
    pub fn status(self) -> &'static str {
        match self {
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

/// Reads a request's head.
#[must_use]
pub fn read(bytes: &[u8]) -> Asked {
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    let mut request = Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(Status::Complete(_)) => route(&request),
        Ok(Status::Partial) if bytes.len() < MAX_REQUEST => Asked::Incomplete,
        Ok(Status::Partial) | Err(Error::TooManyHeaders) => Asked::Refused(Refusal::TooLarge),
        Err(_) => Asked::Refused(Refusal::BadRequest),
    }
}

fn route(request: &Request<'_, '_>) -> Asked {
    let has_host = request.headers.iter().any(|field| field.name.eq_ignore_ascii_case("Host"));
    let path = request.path.and_then(|target| target.split('?').next());
    match (request.method, path) {
        _ if request.version == Some(1) && !has_host => Asked::Refused(Refusal::BadRequest),
        (Some("GET"), Some("/metrics")) => Asked::Metrics { body: true },
        (Some("HEAD"), Some("/metrics")) => Asked::Metrics { body: false },
        (_, Some("/metrics")) => Asked::Refused(Refusal::MethodNotAllowed),
        _ => Asked::Refused(Refusal::NotFound),
    }
}

/// The answer that has the metrics.
#[must_use]
pub fn metrics(text: &str, body: bool, now: DateTime<Utc>) -> Vec<u8> {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let mut response = head("200 OK", kind, text.len(), now);
    if body {
        response.push_str(text);
    }
    response.into_bytes()
}

/// The answer that says no.
#[must_use]
pub fn refused(refusal: Refusal, now: DateTime<Utc>) -> Vec<u8> {
    let status = refusal.status();
    let mut response = head(status, "text/plain; charset=utf-8", status.len() + 1, now);
    response.push_str(status);
    response.push('\n');
    response.into_bytes()
}

fn head(status: &str, kind: &str, length: usize, now: DateTime<Utc>) -> String {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let date = now.format("%a, %d %b %Y %H:%M:%S GMT");
    format!(
        "HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         {allow}Connection: close\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal(bytes: &[u8]) -> Refusal {
        match read(bytes) {
            Asked::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_resource_is_there_to_be_read() {
        let get = b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
        assert_eq!(read(get), Asked::Metrics { body: true });
        assert_eq!(read(&get[..get.len() - 1]), Asked::Incomplete);
        assert_eq!(read(b"GET /metrics?x=1 HTTP/1.0\r\n\r\n"), Asked::Metrics { body: true });
        assert_eq!(read(b"HEAD /metrics HTTP/1.1\r\nhost: a\r\n\r\n"), Asked::Metrics { body: false });
        assert_eq!(refusal(b"POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n"), Refusal::MethodNotAllowed);
        assert_eq!(refusal(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Refusal::NotFound);
        assert_eq!(refusal(b"GET /metrics HTTP/1.1\r\n\r\n"), Refusal::BadRequest);
        assert_eq!(refusal(b"\x0e\0\0\0\0"), Refusal::BadRequest);
    }

    #[test]
    fn a_head_that_is_too_long_is_refused() {
        let begun = [b"GET /metrics HTTP/1.1\r\nHost: ", &[b'a'; MAX_REQUEST][..]].concat();
        assert_eq!(read(&begun[..MAX_REQUEST - 1]), Asked::Incomplete);
        assert_eq!(refusal(&begun[..MAX_REQUEST]), Refusal::TooLarge);
        let fields = format!("GET /metrics HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS));
        assert_eq!(refusal(fields.as_bytes()), Refusal::TooLarge);
    }

    #[test]
    fn an_answer_says_how_long_it_is() {
        let now = DateTime::from_timestamp(1_900_000_000, 0).unwrap();
        let whole = String::from_utf8(metrics("a 1\n", true, now)).unwrap();
        let (head, body) = whole.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "a 1\n");
        assert!(head.contains("Date: Sun, 17 Mar 2030 17:46:40 GMT\r\n"), "{head}");
        assert!(head.contains("Content-Length: 4\r\n") && head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(metrics("a 1\n", false, now).ends_with(b"\r\n\r\n"));
        let no = String::from_utf8(refused(Refusal::MethodNotAllowed, now)).unwrap();
        assert!(no.contains("Allow: GET, HEAD\r\n") && no.contains("Content-Length: 23\r\n"), "{no}");
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes: Vec<u8>) {
            drop(refused(match read(&bytes) {
                Asked::Refused(refusal) => refusal,
                _ => Refusal::NotFound,
            }, DateTime::UNIX_EPOCH));
        }
    }
}
