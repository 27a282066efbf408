//! `satsuma cluster`: the nodes and the engine between them.

use std::fmt::Write;

use serde_json::Value;

use super::client::{Operator, ServerOptions};
use super::failure::OperateError;
use super::table::{Align, Table, safe_json, seconds, shown};

pub(super) const HELP: &str = "\
Examples:
  satsuma cluster
  satsuma cluster --json | jq -r '.nodes[] | select(.alive | not) | .name'";

/// Options of the cluster's view.
#[derive(Clone, Debug, clap::Args)]
pub struct ClusterOptions {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The server.
    #[command(flatten)]
    pub(super) server: ServerOptions,
}

/// Shows the cluster as the node sees it; returns the text to print.
pub(super) async fn show(operator: &Operator, options: &ClusterOptions) -> Result<String, OperateError> {
    let cluster = operator.get("/admin/cluster").await?;
    Ok(if options.json { safe_json(&format!("{cluster:#}\n")) } else { text(&cluster) })
}

fn text(cluster: &Value) -> String {
    use Align::{Left, Right};
    if cluster["clustered"] != true {
        return "this server is a single node; [cluster] makes it one of several\n".to_owned();
    }
    let field = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let (engine, takeovers) = (&cluster["engine"], &cluster["takeovers"]);
    let mut head = String::new();
    // Writing to a text cannot fail.
    let _ = writeln!(
        head,
        "engine     {} since {}, server {} {}, {} reconnects",
        shown(&field(engine, "status")),
        shown(&field(engine, "since")),
        shown(&field(engine, "server")),
        shown(&field(engine, "version")),
        engine["reconnects"],
    );
    let _ = writeln!(
        head,
        "takeovers  {} from dead nodes, {} handed over, {} fenced\n",
        takeovers["died"], takeovers["handedOver"], cluster["fenced"],
    );
    let columns = [
        ("node", Left),
        ("state", Left),
        ("pulse", Right),
        ("owned", Right),
        ("relayed", Right),
        ("sockets", Right),
        ("version", Left),
        ("name", Left),
    ];
    let mut table = Table::new(&columns);
    for node in cluster["nodes"].as_array().into_iter().flatten() {
        let state = match node {
            _ if node["sameSecret"] == false => "other secret",
            _ if node["alive"] == false => "gone",
            _ if node["draining"] == true => "leaving",
            _ => "alive",
        };
        let pulse = node["lastPulseSecondsAgo"].as_f64().map_or("this node".to_owned(), pulse_age);
        let [owned, relayed, sockets] = ["owned", "relayed", "sockets"].map(|key| node[key].to_string());
        let (id, version, name) = (field(node, "id"), field(node, "version"), field(node, "name"));
        table.row([&*id, state, &pulse, &owned, &relayed, &sockets, &version, &name]);
    }
    format!("{head}{table}")
}

/// The age of a pulse, of which there are four a second.
fn pulse_age(age: f64) -> String {
    if age < 10.0 { format!("{age:.1} s") } else { seconds(age) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cluster_is_a_table_of_nodes() {
        let node = |id: &str, alive: bool, age: Value, name: &str| {
            json!({"alive": alive, "draining": false, "id": id, "lastPulseSecondsAgo": age, "name": name, "owned": 3,
                "relayed": 12, "sameSecret": true, "sockets": 40, "this": age.is_null(), "version": "0.2.0"})
        };
        let cluster = json!({"clustered": true, "engine": {"reconnects": 1, "server": "n1", "since": "2026-01-01T00:00:00Z",
            "status": "connected", "version": "2.11.0"}, "fenced": 0, "node": "0000000a",
            "nodes": [node("0000000a", true, Value::Null, "a"), node("0000000b", true, json!(0.123), "b"),
                node("0000000c", false, json!(90.0), "c\u{1b}[2J")],
            "takeovers": {"died": 3, "handedOver": 1}});
        let expected = "\
engine     connected since 2026-01-01T00:00:00Z, server n1 2.11.0, 1 reconnects
takeovers  3 from dead nodes, 1 handed over, 0 fenced

node      state      pulse  owned  relayed  sockets  version  name
0000000a  alive  this node      3       12       40  0.2.0    a
0000000b  alive      0.1 s      3       12       40  0.2.0    b
0000000c  gone       2 min      3       12       40  0.2.0    c\\u{1b}[2J
";
        assert_eq!(text(&cluster), expected);
        assert!(text(&json!({"clustered": false})).contains("a single node"));
    }
}
