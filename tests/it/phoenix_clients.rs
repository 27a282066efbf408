//! Stock clients of Phoenix: npm `phoenix` in two versions, and the client of PyPI.
//!
//! The checks are programs in `tests/clients/phoenix`, which run against Phoenix itself as well.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::{Person, TestServer, answer};

/// Timeout of all checks of one client.
const CHECKS_PATIENCE: Duration = Duration::from_secs(240);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Runs a program of checks against a server with the default settings, and asserts that it ran at least
/// so many and that all of them passed.
async fn assert_passes(mut program: Command, at_least: usize) {
    let mut server = TestServer::start().await;
    let address = server.addresses().http;
    program.arg(server.http()).current_dir(folder()).kill_on_drop(true);
    let mut child =
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it cannot be started");
    let mut orders = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut passed = BTreeSet::new();
    let mut failed = Vec::new();
    let run = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
            if line["control"] == "restart" {
                server = server.stop().await.start_with(|config| config.http.listen = address).await;
                orders.write_all(b"done\n").await.unwrap();
            } else if line["ok"] == true {
                passed.insert(line["check"].as_str().unwrap().to_owned());
            } else if line["checks"].is_u64() {
                return line["checks"].as_u64().unwrap();
            } else {
                eprintln!("{line}");
                failed.push(line);
            }
        }
        panic!("the checks ended early, after {passed:?}");
    };
    let checks = timeout(CHECKS_PATIENCE, run).await.expect("the checks take too long");
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(u64::try_from(passed.len()).unwrap(), checks);
    assert!(passed.len() >= at_least, "{passed:?}");
    assert!(child.wait().await.unwrap().success());
}

/// The checks with an npm package.
fn node(package: &str) -> Command {
    let installed = folder().join("node_modules").join(package).join("package.json");
    assert!(installed.is_file(), "{package} is missing: run npm ci in tests/clients");
    let mut node = Command::new("node");
    node.args(["phoenix/checks.mjs", package]);
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs node"]
async fn newest_phoenix_client_passes_its_checks() {
    assert_passes(node("phoenix"), 72).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs node"]
async fn phoenix_client_of_1_7_passes_its_checks() {
    assert_passes(node("phoenix-1.7"), 69).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs python"]
async fn python_client_passes_its_checks() {
    let mut program = Command::new(python());
    program.arg("phoenix/checks.py");
    assert_passes(program, 8).await;
}

/// The interpreter that has the packages of `tests/clients/requirements.txt`.
fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("python").join("bin/python");
    assert!(python.is_file(), "{} is missing: see docs/development.md", python.display());
    python
}

/// An example of `docs/phoenix.md`: its code, and the lines that the page says it prints.
fn documented(file: &str) -> (String, Vec<String>) {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/phoenix.md")).unwrap();
    // Every second part is within a fence.
    let blocks: Vec<&str> = page.split("```").skip(1).step_by(2).collect();
    let code = blocks
        .iter()
        .position(|block| block.lines().nth(1).is_some_and(|line| line.ends_with(file)))
        .unwrap();
    let output = blocks[code..].iter().find(|block| block.starts_with('\n')).unwrap();
    let code = blocks[code].split_once('\n').unwrap().1;
    (code.to_owned(), output.trim().lines().map(str::to_owned).collect())
}

/// Runs an example as a member named Ada, and waits for all lines that the page says it prints.
async fn assert_prints(mut program: Command, file: &str) {
    let server = TestServer::start().await;
    let person = Person::log_in(&server, "Ada").await;
    let request = server.post_form("/api/socket-token", &[]).header("cookie", person.cookie());
    let token = answer(request).await.json()["token"].as_str().unwrap().to_owned();
    let (code, mut wanted) = documented(file);
    assert!(!wanted.is_empty());
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(file), code).unwrap();
    std::os::unix::fs::symlink(folder().join("node_modules"), dir.path().join("node_modules")).unwrap();
    let address = format!("ws://{}", server.addresses().http);
    program.current_dir(dir.path()).args([file, &address, "my room", &token]).kill_on_drop(true);
    let mut child = program.stdout(Stdio::piped()).spawn().expect("it cannot be started");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let run = async {
        while !wanted.is_empty() {
            let line = lines.next_line().await.unwrap().expect("the example ended");
            wanted.retain(|wanted| *wanted != line);
        }
    };
    let ended = timeout(CHECKS_PATIENCE, run).await;
    assert!(ended.is_ok(), "{file} did not print {wanted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs node and python"]
async fn documented_examples_print_what_the_page_says() {
    assert_prints(Command::new("node"), "room.mjs").await;
    let mut python = Command::new(python());
    python.arg("-u");
    assert_prints(python, "room.py").await;
}
