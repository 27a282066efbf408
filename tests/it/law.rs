//! The laws of the house, read from its sources: who may know whom, and how long a file may be.
//!
//! The import law is the table in the documentation of `src/lib.rs`.

use std::fs;
use std::path::{Path, PathBuf};

/// The levels at which modules may know each other: names and settings, and the edges, which are
/// one door with several wings.
const LEVELS_OF_FRIENDS: [usize; 2] = [0, 7];

const MAX_LINES: usize = 450;
const MAX_LINES_OF_MAIN: usize = 60;

#[test]
fn nobody_imports_upward() {
    let law = Law::read();
    let mut broken = Vec::new();
    for source in sources() {
        // The two roots know everything.
        if !source.is_root() {
            broken.extend(law.broken_by(&source));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_module_has_its_level() {
    let law = Law::read();
    for source in sources() {
        // A module whose parts have levels of their own only names them.
        let is_index = law.levels.iter().any(|(module, _)| module.starts_with(&source.module));
        assert!(
            source.is_root() || is_index || law.level(&source.module).is_some(),
            "{}: the table in src/lib.rs has no level for this file",
            source.path
        );
    }
}

#[test]
fn an_import_that_breaks_the_law_is_seen() {
    let law = Law {
        levels: [("id", 0), ("room::io", 2), ("store", 3), ("identity", 3), ("room::actor", 4)]
            .map(|(module, level)| (path(module), level))
            .into(),
    };
    let broken = |module: &str, text: &str| {
        let source = Source { path: "f".into(), module: path(module), text: text.into() };
        law.broken_by(&source)
    };
    assert_eq!(
        broken("room::io", "use std::fmt;\nuse crate::{id::A, store::{self, B}};\n"),
        ["f:2: room::io (level 2) may not know crate::store (level 3)"]
    );
    assert_eq!(broken("room::io", "fn f() { super::actor::g() }").len(), 1);
    assert_eq!(broken("store", "use crate::identity::Identity;").len(), 1);
    assert_eq!(broken("id", "use crate::nowhere::X;").len(), 1);
    for good in
        ["use crate::id::A;", "// crate::store", "use super::io::A;", "#[cfg(test)]\nuse crate::store::A;"]
    {
        assert_eq!(broken("room::io", good), [""; 0], "{good}");
    }
}

#[test]
fn no_file_is_long() {
    for source in sources() {
        let lines = source.code().lines().count();
        let most = if source.path == "src/main.rs" { MAX_LINES_OF_MAIN } else { MAX_LINES };
        assert!(
            lines <= most,
            "{}:{lines}: {lines} lines before the tests, and at most {most} are allowed: split it by concept",
            source.path
        );
    }
}

#[test]
fn unsafe_code_is_forbidden() {
    let manifest = |folder: &str| -> toml::Table {
        fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap().parse().unwrap()
    };
    let workspace = &manifest(".")["workspace"];
    let lint = workspace.get("lints").and_then(|lints| lints.get("rust")?.get("unsafe_code")?.as_str());
    assert_eq!(lint, Some("forbid"), "Cargo.toml: workspace.lints.rust.unsafe_code must be \"forbid\"");
    for folder in workspace["members"].as_array().unwrap() {
        let folder = folder.as_str().unwrap();
        let inherits = manifest(folder).get("lints").and_then(|lints| lints.get("workspace")?.as_bool());
        assert_eq!(inherits, Some(true), "{folder}/Cargo.toml: lints.workspace must be true");
    }
}

/// The levels of modules, as the table says.
struct Law {
    levels: Vec<(Vec<String>, usize)>,
}

impl Law {
    fn read() -> Self {
        let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
        let mut levels = Vec::new();
        for line in text.lines() {
            let mut cells = line.trim_start_matches("//!").split('|').map(str::trim).skip(1);
            let (Some(Ok(level)), Some(modules)) = (cells.next().map(str::parse), cells.next()) else {
                continue;
            };
            let links = modules.split("[`").skip(1).map(|link| link.split("`]").next().unwrap());
            levels.extend(links.map(|module| (path(module), level)));
        }
        assert!(!levels.is_empty(), "src/lib.rs: the table of levels is not where it was");
        Self { levels }
    }

    /// The module of the table that a path leads into, and its level.
    fn level(&self, path: &[String]) -> Option<(&[String], usize)> {
        let (module, level) = self.levels.iter().find(|(module, _)| path.starts_with(module))?;
        Some((module, *level))
    }

    fn broken_by(&self, source: &Source) -> Vec<String> {
        let own = self.level(&source.module).map(|(_, level)| level);
        let mut broken = Vec::new();
        for (line, target) in source.imports() {
            let at = format!("{}:{line}: {}", source.path, source.module.join("::"));
            let name = target.join("::");
            match (own, self.level(&target)) {
                // A part of the same module, which has a level of its own only where the table says so.
                (_, None) if target[0] == source.module[0] => {}
                (_, None) => broken.push(format!("{at} names crate::{name}, which has no level")),
                // An index re-exports what every module may know.
                (None, Some((_, 0))) => {}
                (None, Some(_)) => broken.push(format!("{at} has no level, but knows crate::{name}")),
                (Some(own), Some((module, level))) => {
                    let is_kin = module[0] == source.module[0] || LEVELS_OF_FRIENDS.contains(&own);
                    if level > own || (level == own && !is_kin) {
                        let module = module.join("::");
                        broken
                            .push(format!("{at} (level {own}) may not know crate::{module} (level {level})"));
                    }
                }
            }
        }
        broken.dedup();
        broken
    }
}

/// A file of `src`.
struct Source {
    path: String,
    module: Vec<String>,
    text: String,
}

impl Source {
    /// True for `lib.rs` and `main.rs`, and for files of the other crates.
    fn is_root(&self) -> bool {
        self.module.is_empty()
            || self.module == ["main"]
            || ["src/sfu/", "src/load/"].iter().any(|folder| self.path.starts_with(folder))
    }

    /// Everything before the tests.
    fn code(&self) -> &str {
        let tests =
            if self.text.starts_with("#[cfg(test)]") { Some(0) } else { self.text.find("\n#[cfg(test)]") };
        &self.text[..tests.unwrap_or(self.text.len())]
    }

    /// Every path of ours that the code names, from the crate's root, with its line.
    fn imports(&self) -> Vec<(usize, Vec<String>)> {
        let lines: Vec<&str> =
            self.code().lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        let code = lines.join("\n");
        let parent = &self.module[..self.module.len().saturating_sub(1)];
        let mut imports = Vec::new();
        for (word, base) in [("crate::", &[][..]), ("super::", parent)] {
            for (place, _) in code.match_indices(word) {
                let is_part_of_a_path =
                    code[..place].ends_with(|char: char| char == ':' || char.is_alphanumeric());
                if !is_part_of_a_path {
                    let line = code[..place].matches('\n').count() + 1;
                    let mut rest = &code[place + word.len()..];
                    imports.extend(branches(&mut rest, base).into_iter().map(|path| (line, path)));
                }
            }
        }
        imports.retain(|(_, path)| path.iter().all(|part| part != "super") && !path.is_empty());
        imports
    }
}

/// The paths of a use tree: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn branches(rest: &mut &str, base: &[String]) -> Vec<Vec<String>> {
    *rest = rest.trim_start();
    if let Some(inner) = rest.strip_prefix('{') {
        *rest = inner;
        let mut all = Vec::new();
        loop {
            all.extend(branches(rest, base));
            let end = rest.find([',', '}']).unwrap_or(rest.len());
            let ended = !rest[end..].starts_with(',');
            *rest = rest.get(end + 1..).unwrap_or_default();
            if ended {
                return all;
            }
        }
    }
    let end = rest.find(|char: char| !char.is_alphanumeric() && char != '_').unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    *rest = after;
    let mut path = base.to_vec();
    if !name.is_empty() && name != "self" {
        path.push(name.to_owned());
    }
    match rest.strip_prefix("::") {
        Some(inner) => {
            *rest = inner;
            branches(rest, &path)
        }
        None => vec![path],
    }
}

fn path(text: &str) -> Vec<String> {
    text.split("::").map(str::to_owned).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    collect(&root().join("src"), &mut files);
    assert!(files.len() > 10, "there are almost no sources");
    files.sort();
    files.into_iter().map(read).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}

fn read(file: PathBuf) -> Source {
    let inside = file.strip_prefix(root().join("src")).unwrap().with_extension("");
    let mut module: Vec<String> = inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if module.last().is_some_and(|last| last == "mod" || (last == "lib" && inside.components().count() == 1))
    {
        module.pop();
    }
    let path = file.strip_prefix(root()).unwrap().display().to_string();
    Source { path, module, text: fs::read_to_string(file).unwrap() }
}
