//! `docs/alerts.yml` and `docs/grafana.json`: what Prometheus makes of them, and whether a server has their metrics.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use common::program::output_of_tool;
use common::tls::tls_setup;
use common::{loteria, output, text};
use serde_json::Value;

const ALERTS: &str = include_str!("../../docs/alerts.yml");
const DASHBOARD: &str = include_str!("../../docs/grafana.json");

/// Runs `promtool`, which must accept the file.
fn promtool(arguments: &[&str]) {
    if let Some(output) = output_of_tool("promtool", arguments) {
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    }
}

/// The expressions of a dashboard, with values for Grafana's variables.
fn expressions(dashboard: &Value) -> Vec<String> {
    match dashboard {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, value)| match value {
                Value::String(query) if key == "expr" => {
                    vec![query.replace("$instance", "a").replace("$__rate_interval", "1m")]
                }
                value => expressions(value),
            })
            .collect(),
        Value::Array(values) => values.iter().flat_map(expressions).collect(),
        _ => Vec::new(),
    }
}

/// The names of metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("loteria_")).collect()
}

#[test]
fn promtool_accepts_the_alerts_and_each_fires_when_it_should_and_not_before() {
    promtool(&["check", "rules", concat!(env!("CARGO_MANIFEST_DIR"), "/docs/alerts.yml")]);
    promtool(&["test", "rules", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/operators/alerts.test.yml")]);
    let cases = include_str!("alerts.test.yml");
    for alert in ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let of_alert = cases.split("alertname: ").filter(|case| case.starts_with(alert));
        let (quiet, firing): (Vec<_>, Vec<_>) =
            of_alert.partition(|case| case[alert.len()..].starts_with(", exp_alerts: [] }"));
        assert!(!quiet.is_empty() && !firing.is_empty(), "{alert} lacks a test");
    }
}

#[test]
fn promtool_accepts_each_expression_of_the_dashboard() {
    let expressions = expressions(&serde_json::from_str(DASHBOARD).unwrap());
    assert!(expressions.len() > 15, "{expressions:?}");
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (number, expression) in expressions.iter().enumerate() {
        // A string in JSON is one in YAML.
        writeln!(rules, "  - {{ record: x{number}, expr: {} }}", Value::from(&**expression)).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yml");
    fs::write(&file, rules).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()]);
}

#[test]
fn a_server_has_each_metric_of_the_alerts_and_of_the_dashboard() {
    let server = tls_setup(1).start();
    let scrape = output(&mut loteria(&["status", "--prometheus", "--address", &server.address()]));
    let scrape = text(&scrape.stdout);
    let samples = scrape.lines().filter(|line| !line.starts_with('#'));
    let known: BTreeSet<&str> = samples.filter_map(|line| line.split(['{', ' ']).next()).collect();
    for file in [ALERTS, DASHBOARD] {
        let named = metrics_in(file);
        assert!(named.len() > 5, "{named:?}");
        assert_eq!(named.difference(&known).next(), None, "{scrape}");
    }
}
