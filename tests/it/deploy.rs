//! The deployment files use existing metrics and settings.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use satsuma::metrics::Metrics;
use toml::Table;

use crate::harness::TestServer;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The words of a text with this prefix, of letters, digits and underscores.
fn words<'a>(text: &'a str, start: &str) -> BTreeSet<&'a str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with(start)).collect()
}

/// A metric's name without the suffix of a counter's, an info's or a histogram's samples.
fn family(sample: &str) -> &str {
    let suffixes = ["_total", "_info", "_bucket", "_sum", "_count"];
    suffixes.into_iter().find_map(|suffix| sample.strip_suffix(suffix)).unwrap_or(sample)
}

#[tokio::test]
async fn dashboard_and_alerts_use_existing_metrics() {
    let server = TestServer::start().await;
    let shown = server.admin_get("/metrics").await.text;
    let names = Metrics::names();
    let is_known = |sample: &str| {
        let families = [sample, family(sample)];
        names.iter().any(|name| families.contains(&name.as_str()))
    };
    assert!(
        words(&shown, "satsuma_").len() > 20 && shown.contains("\nprocess_cpu_seconds_total "),
        "{shown}"
    );
    let strays: Vec<_> =
        shown.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(strays.iter().all(|name| is_known(name)), "/metrics has others than {names:?}");
    for file in ["config/deploy/grafana.json", "config/deploy/prometheus-alerts.yaml"] {
        let text = read(file);
        let named: Vec<_> = ["satsuma_", "process_"].iter().flat_map(|start| words(&text, start)).collect();
        assert!(named.len() > 8, "{file}: {named:?}");
        let unknown: Vec<_> = named.into_iter().filter(|name| !is_known(name)).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}");
    }
}

#[test]
fn deployments_use_existing_variables() {
    let mut known = BTreeSet::from(["SATSUMA_CONFIG".to_owned()]);
    for (section, value) in read("config/satsuma.toml").parse::<Table>().unwrap() {
        let section = section.to_uppercase();
        match value {
            toml::Value::Table(keys) => {
                known.extend(keys.keys().map(|key| format!("SATSUMA_{section}__{}", key.to_uppercase())));
            }
            _ => drop(known.insert(format!("SATSUMA_{section}"))),
        }
    }
    for file in [
        "compose.yaml",
        "kubernetes.yaml",
        "satsuma.service",
        "cluster/compose.yaml",
        "cluster/kubernetes.yaml",
    ]
    .map(|file| format!("config/deploy/{file}"))
    .iter()
    .map(String::as_str)
    .chain(["Dockerfile", "README.md", "docs/deployment.md"])
    {
        let text = read(file);
        let unknown: Vec<_> =
            words(&text, "SATSUMA_").into_iter().filter(|name| !known.contains(*name)).collect();
        assert!(unknown.is_empty(), "{file} sets {unknown:?}");
    }
}
