//! `loteria metrics`: serves the status of a server to Prometheus over HTTP. It is a client of that server like any other.
//!
//! The HTTP library makes a thread for each connection. That is allowed here, because this process never forks.

use std::io;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use oxhttp::Server;
use oxhttp::model::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use oxhttp::model::{Body, Method, Request, Response, StatusCode};

use super::ask::{DEADLINE, ask};
use super::prometheus::exposition;
use crate::logging::{Level, Outcome, event, info};
use crate::system::signal::{exit_on_termination, wait_for_termination};
use crate::tls::client::Target;

/// Connections that are served at once; others wait. Each takes two descriptors, and the usual limit is 1,024.
const MAX_CONNECTIONS: usize = 128;
/// How long a scraper may be silent, or not read.
const SCRAPER_TIMEOUT: Duration = Duration::from_secs(5);
/// The content types: metrics, and a text for people.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Serves the metrics of `server` at `listen` until SIGTERM or SIGINT. Both signals must be blocked.
pub(crate) fn run(listen: &str, server: Target) -> io::Result<()> {
    // The library binds by itself, but neither looks up a name, which may take long, nor tells which port it got.
    let listener = exit_on_termination(|| TcpListener::bind(listen))?;
    let address = listener?.local_addr()?;
    let none = Scrape { asked_at: Instant::now(), is_up: true, text: String::new() };
    let source = Source { server, latest: Mutex::new(none) };
    let http = Server::new(move |request| respond(request, &source))
        .bind(address)
        .with_global_timeout(SCRAPER_TIMEOUT)
        .with_max_concurrent_connections(MAX_CONNECTIONS);
    http.spawn()?;
    info("metrics_listen", Outcome::Success, &[("ip", &address.ip()), ("port", &address.port())]);
    wait_for_termination().map(drop)
}

fn respond(request: &mut Request<Body>, source: &Source) -> Response<Body> {
    // The library then closes the connection. An idle scraper would take the place of another.
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let (status, content_type, text) = match (request.uri().path(), request.method()) {
        ("/metrics", &Method::GET) => (StatusCode::OK, METRICS, source.metrics()),
        ("/metrics", _) => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is allowed\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, TEXT, "not found: the metrics are at /metrics\n".to_owned()),
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    }
    response
}

/// Where the metrics come from.
struct Source {
    server: Target,
    latest: Mutex<Scrape>,
}

/// An answer of the server, or its absence.
struct Scrape {
    asked_at: Instant,
    is_up: bool,
    text: String,
}

impl Source {
    /// Returns the metrics of this moment. Scrapers that come while the server is asked share its next answer.
    fn metrics(&self) -> String {
        let came_at = Instant::now();
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.asked_at <= came_at {
            *latest = self.ask(latest.is_up);
        }
        latest.text.clone()
    }

    /// Asks the server. Logs when it stops answering, and when it answers again.
    fn ask(&self, was_up: bool) -> Scrape {
        let asked_at = Instant::now();
        let status = ask(&self.server, DEADLINE);
        let server = &self.server.address;
        match &status {
            Ok(_) if !was_up => info("status", Outcome::Success, &[("server", server)]),
            Err(error) if was_up => {
                event(Level::Warning, "status", Outcome::Fail, &[("server", server), ("error", error)]);
            }
            _ => {}
        }
        Scrape { asked_at, is_up: status.is_ok(), text: exposition(status.ok().as_ref()) }
    }
}
