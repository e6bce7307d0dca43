//! The status in the text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write as _};

use crate::protocol::status::{AgencyStatus, Status, Summary};

/// The metrics. Without a status there is only `loteria_up`, which is 0.
pub(crate) fn exposition(status: Option<&Status>) -> String {
    let mut text = Exposition(String::new());
    text.gauge("up", "Whether the server answers: 1 or 0.", u8::from(status.is_some()));
    if let Some(status) = status {
        text.status(status);
    }
    text.0
}

struct Exposition(String);

impl Exposition {
    fn status(&mut self, status: &Status) {
        self.counter("bets_stored", "Bets on disk.", status.bets);
        self.counter("batches_stored", "Messages of bets that were acknowledged.", status.batches);
        self.refusals(status);
        self.counter("connections_accepted", "Connections that were accepted.", status.connections);
        self.gauge("handlers", "Connections that are being served.", status.handlers);
        self.gauge("handlers_limit", "Connections that can be served at once.", status.max_clients);
        self.gauge("agencies", "Agencies that take part.", status.agencies);
        self.gauge("agencies_ended", "Agencies that have sent END.", status.ended);
        self.gauge("draw_made", "Whether the draw has been made: 1 or 0.", u8::from(status.drawn));
        let restarts = status.storage_restarts;
        self.counter("storage_restarts", "Storage services that died and were replaced.", restarts);
        self.gauge("uptime_seconds", "Time since the server started.", status.uptime_seconds);
        self.summary("group_bets", "Bets that went to disk with one sync.", status.group_bets);
        self.summary("sync_duration_seconds", "Duration of each of these syncs.", status.sync_seconds);
        let agencies = &status.per_agency;
        self.agencies("agency_bets", "Bets of the agency on disk.", agencies, |agency| agency.bets);
        let ended = |agency: &AgencyStatus| u64::from(agency.ended);
        self.agencies("agency_ended", "Whether the agency has sent END: 1 or 0.", agencies, ended);
    }

    // Writing to a String cannot fail.

    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP loteria_{name} {help}\n# TYPE loteria_{name} {kind}").ok();
    }

    fn sample(&mut self, name: &str, value: impl Display) {
        writeln!(self.0, "loteria_{name} {value}").ok();
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

    fn summary(&mut self, name: &str, help: &str, summary: Summary) {
        self.begin(name, "summary", help);
        self.sample(&format!("{name}_sum"), summary.sum);
        self.sample(&format!("{name}_count"), summary.count);
    }

    fn agencies(&mut self, name: &str, help: &str, all: &[AgencyStatus], of: fn(&AgencyStatus) -> u64) {
        self.begin(name, "gauge", help);
        for agency in all {
            self.sample(&format!("{name}{{agency=\"{}\"}}", agency.agency), of(agency));
        }
    }

    fn refusals(&mut self, status: &Status) {
        self.begin("refusals_total", "counter", "Requests that were refused, by process and reason.");
        for refusals in &status.refusals {
            let (by, reason) = (escape(&refusals.by), escape(&refusals.reason));
            self.sample(&format!("refusals_total{{by=\"{by}\",reason=\"{reason}\"}}"), refusals.count);
        }
    }
}

/// Escape the value of a label. It comes from the server, which is not trusted.
fn escape(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples;

    #[test]
    fn a_status_becomes_samples_with_help_and_type() {
        let text = exposition(Some(&samples::status(&[(7, true), (1, false)])));
        for part in [
            "# HELP loteria_up Whether the server answers: 1 or 0.\n# TYPE loteria_up gauge\nloteria_up 1\n",
            "\nloteria_bets_stored_total 8\n",
            "\nloteria_refusals_total{by=\"handler\",reason=\"bets\"} 2\n",
            "\nloteria_draw_made 0\n",
            "\n# TYPE loteria_group_bets summary\nloteria_group_bets_sum 8\nloteria_group_bets_count 2\n",
            "\nloteria_sync_duration_seconds_sum 0.0025\nloteria_sync_duration_seconds_count 2\n",
            "\nloteria_agency_bets{agency=\"1\"} 7\nloteria_agency_bets{agency=\"2\"} 1\n",
            "\nloteria_agency_ended{agency=\"1\"} 1\nloteria_agency_ended{agency=\"2\"} 0\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn without_a_status_there_is_only_up() {
        let text = exposition(None);
        assert!(text.ends_with("\nloteria_up 0\n") && text.lines().count() == 3, "{text}");
    }

    #[test]
    fn a_label_cannot_break_its_line() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
