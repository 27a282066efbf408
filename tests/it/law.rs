//! The rules of the sources: the direction of imports between folders, and the length of a file.

use std::fs;
use std::path::{Path, PathBuf};

/// The folders of `src` from the lowest level up. One imports only from lower levels, never from its own.
const LEVELS: [&[&str]; 15] = [
    &["clock", "id", "network"],
    &["limit", "metrics", "media_access"],
    &["config"],
    &["protocol", "telemetry"],
    &["store", "auth"],
    &["http", "delivery", "operate"],
    &["media_api"],
    &["agent"],
    &["ai", "assistant"],
    &["room"],
    &["ws", "nodes", "reports", "site", "room_api"],
    &["durable", "events", "login"],
    &["orange", "admin"],
    &["server"],
    &["lib", "main"],
];

const MAX_LINES: usize = 450;

#[test]
fn folders_import_downward() {
    let level = |folder: &str| LEVELS.iter().position(|level| level.contains(&folder));
    let mut broken = Vec::new();
    for (path, text) in sources("src") {
        let folder = path.split(['/', '.']).next().unwrap();
        let own = level(folder).unwrap_or_else(|| panic!("{path}: the table has no level for {folder}"));
        for (number, line) in code(&text).lines().enumerate() {
            let line = line.split("//").next().unwrap();
            for import in line.split("crate::").skip(1) {
                // `crate::a::B`, or `crate::{a, b}`.
                let names = import.strip_prefix('{').map_or(1, |list| list.split(',').count());
                let words = import.split(|char: char| char != '_' && !char.is_alphanumeric());
                for target in words.filter(|word| !word.is_empty()).take(names) {
                    if target != folder && level(target).is_none_or(|level| level >= own) {
                        broken.push(format!("src/{path}:{}: {folder} may not import {target}", number + 1));
                    }
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn files_are_short() {
    for package in ["src", "src/cluster", "src/sfu", "src/load"] {
        for (path, text) in sources(package) {
            let lines = code(&text).lines().count();
            assert!(
                lines <= MAX_LINES,
                "{package}/{path}: {lines} lines before the tests; split it by concept"
            );
        }
    }
}

/// The code before the tests.
fn code(text: &str) -> &str {
    if text.starts_with("#[cfg(test)]") { "" } else { text.split("\n#[cfg(test)]").next().unwrap() }
}

/// The Rust files of a package, without those of packages in its folder: path in the folder, and text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let (root, mut found) = (Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), Vec::new());
    let mut pending: Vec<PathBuf> = vec![root.clone()];
    while let Some(path) = pending.pop() {
        if path.is_dir() && (path == root || !path.join("Cargo.toml").exists()) {
            pending.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|end| end == "rs") {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(found.len() > 5, "there are almost no sources");
    found
}
