//! The status in the text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write as _};

use crate::lottery::Seal;
use crate::lottery::hex::hex;
use crate::protocol::status::{Refusals, Status, Summary};

/// Returns the metrics. Without a status there is only `loteria_up`, which is 0.
pub(crate) fn exposition(status: Option<&Status>) -> String {
    let mut text = String::new();
    push_one(&mut text, "up", "Whether the server answers: 1 or 0.", u8::from(status.is_some()));
    if let Some(status) = status {
        push_status(&mut text, status);
    }
    text
}

fn push_status(text: &mut String, status: &Status) {
    let refusals = status.refusals.iter().map(|refusals| (labels_of(refusals), refusals.count));
    push_one(text, "bets_stored_total", "Bets on disk.", status.bets);
    push_one(text, "batches_stored_total", "Messages of bets that were acknowledged.", status.batches);
    push(text, "refusals_total", "counter", "Requests that were refused, by process and reason.", refusals);
    push_one(text, "connections_accepted_total", "Connections that were accepted.", status.connections);
    let help = "Connections that were requests for the status, such as scrapes.";
    push_one(text, "status_requests_total", help, status.status_requests);
    push_one(text, "handlers", "Connections that are being served.", status.handlers);
    push_one(text, "handlers_limit", "Connections that can be served at once.", status.max_clients);
    push_one(text, "agencies", "Agencies that take part.", status.agencies);
    push_one(text, "agencies_ended", "Agencies that have sent END.", status.ended);
    push_one(text, "draw_made", "Whether the draw has been made: 1 or 0.", u8::from(status.drawn));
    if let Some(Seal { bets, bytes, sha256 }) = status.seal() {
        let labels = format!("{{bets=\"{bets}\",bytes=\"{bytes}\",sha256=\"{}\"}}", hex(&sha256));
        push(text, "seal_info", "gauge", "What the file of bets was at the draw.", [(labels, 1)]);
    }
    let help = "Storage services that died and were replaced.";
    push_one(text, "storage_restarts_total", help, status.storage_restarts);
    push_one(text, "uptime_seconds", "Time since the server started.", status.uptime_seconds);
    if let Some(until) = status.certificate_until {
        let help = "End of the server's certificate, in seconds since 1970.";
        push_one(text, "certificate_end_timestamp_seconds", help, until);
    }
    push_summary(text, "group_bets", "Bets that went to disk with one sync.", &status.group_bets);
    push_summary(text, "sync_duration_seconds", "Duration of each of these syncs.", &status.sync_seconds);
    let of_agencies = || status.per_agency.iter().map(|row| (format!("{{agency=\"{}\"}}", row.agency), row));
    let bets = of_agencies().map(|(label, row)| (label, row.bets));
    push(text, "agency_bets", "gauge", "Bets of the agency on disk.", bets);
    let ended = of_agencies().map(|(label, row)| (label, u8::from(row.ended)));
    push(text, "agency_ended", "gauge", "Whether the agency has sent END: 1 or 0.", ended);
}

/// Pushes a metric that has one sample. The name of a counter ends with `_total`.
fn push_one(text: &mut String, name: &str, help: &str, value: impl Display) {
    let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
    push(text, name, kind, help, [("", value)]);
}

fn push_summary(text: &mut String, name: &str, help: &str, summary: &Summary) {
    let samples = [("_sum", summary.sum.to_string()), ("_count", summary.count.to_string())];
    push(text, name, "summary", help, samples);
}

/// Pushes a metric and its samples: what follows its name, and the value.
fn push<S: Display, V: Display>(
    text: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    samples: impl IntoIterator<Item = (S, V)>,
) {
    // Writing to a String cannot fail.
    writeln!(text, "# HELP loteria_{name} {help}\n# TYPE loteria_{name} {kind}").ok();
    for (suffix, value) in samples {
        writeln!(text, "loteria_{name}{suffix} {value}").ok();
    }
}

/// The values come from the server, which is not trusted. Their control characters have been escaped by `ask`.
fn labels_of(refusals: &Refusals) -> String {
    let escape = |value: &str| value.replace('\\', r"\\").replace('"', "\\\"");
    format!("{{by=\"{}\",reason=\"{}\"}}", escape(&refusals.by), escape(&refusals.reason))
}
