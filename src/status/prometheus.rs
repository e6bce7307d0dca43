//! The status in the text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write as _};

use crate::protocol::histogram::Histogram;
use crate::protocol::status::Status;

/// The metrics. Single agencies have none: there may be 65,535 of them.
#[must_use]
pub fn text(status: &Status) -> String {
    let mut text = Exposition(String::new());
    text.counter("bets_stored", "Bets on disk.", status.bets);
    text.counter("batches_stored", "Messages of bets that were acknowledged.", status.batches);
    text.refusals(status);
    text.counter("connections_accepted", "Connections that were accepted.", status.connections);
    text.gauge("handlers", "Connections that are being served.", status.handlers);
    text.gauge("handlers_limit", "Connections that can be served at once.", status.max_clients);
    text.gauge("agencies", "Agencies that take part.", status.agencies);
    text.gauge("agencies_ended", "Agencies that have sent END.", status.ended);
    text.gauge("draw_made", "Whether the draw has been made: 1 or 0.", u8::from(status.drawn));
    text.counter(
        "storage_restarts",
        "Storage services that died and were replaced.",
        status.storage_restarts,
    );
    text.gauge("uptime_seconds", "How long the server has been running.", status.uptime_seconds);
    text.histogram("group_bets", "Bets that went to disk with one sync.", &status.group_bets);
    text.histogram("sync_duration_seconds", "How long each of these syncs took.", &status.sync_seconds);
    text.0
}

/// Writes samples. Writing to a String cannot fail.
struct Exposition(String);

impl Exposition {
    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP loteria_{name} {help}\n# TYPE loteria_{name} {kind}").unwrap_or_default();
    }

    fn sample(&mut self, name: &str, value: impl Display) {
        writeln!(self.0, "loteria_{name} {value}").unwrap_or_default();
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.begin(name, "gauge", help);
        self.sample(name, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let name = format!("{name}_total");
        self.begin(&name, "counter", help);
        self.sample(&name, value);
    }

    fn refusals(&mut self, status: &Status) {
        self.begin("refusals_total", "counter", "What was refused, by whom and why.");
        for refusals in &status.refusals {
            let (by, reason) = (escape(&refusals.by), escape(&refusals.reason));
            self.sample(&format!("refusals_total{{by=\"{by}\",reason=\"{reason}\"}}"), refusals.count);
        }
    }

    /// In this format each bucket has those below it too.
    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.begin(name, "histogram", help);
        let mut upto: u64 = 0;
        for (bound, count) in histogram.le.iter().zip(&histogram.counts) {
            upto = upto.saturating_add(*count);
            self.sample(&format!("{name}_bucket{{le=\"{bound}\"}}"), upto);
        }
        self.sample(&format!("{name}_bucket{{le=\"+Inf\"}}"), histogram.count());
        self.sample(&format!("{name}_sum"), histogram.sum);
        self.sample(&format!("{name}_count"), histogram.count());
    }
}

/// A label's value: the words come from the server, which may be anyone.
fn escape(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples;

    #[test]
    fn buckets_have_those_below_them_too() {
        let text = text(&samples::status(&[(7, true), (1, false)]));
        let histogram = "# HELP loteria_group_bets Bets that went to disk with one sync.\n\
             # TYPE loteria_group_bets histogram\n\
             loteria_group_bets_bucket{le=\"1\"} 1\nloteria_group_bets_bucket{le=\"10\"} 2\n\
             loteria_group_bets_bucket{le=\"+Inf\"} 2\nloteria_group_bets_sum 8\nloteria_group_bets_count 2\n";
        assert!(text.contains(histogram), "{text}");
        for line in [
            "loteria_bets_stored_total 8",
            "loteria_refusals_total{by=\"handler\",reason=\"bets\"} 2",
            "loteria_handlers 2",
            "loteria_agencies_ended 1",
            "loteria_draw_made 0",
            "loteria_sync_duration_seconds_bucket{le=\"0.001\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_label_cannot_break_its_line() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
