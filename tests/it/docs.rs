//! The documentation agrees with the settings, the code and itself.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/configuration.md";

const HEAD: &str = r#"# Configuration

No setting is needed. They are read from, each over the one before:

1. the defaults below, which are those of [config/satsuma.toml](../config/satsuma.toml);
2. the file that `--config` or `SATSUMA_CONFIG` names, else `satsuma.toml` or `config/satsuma.toml` in the working directory;
3. environment variables: `room.tick` is `SATSUMA_ROOM__TICK`, `data_dir` is `SATSUMA_DATA_DIR`. Lists are separated by commas.
   Orange's own names (in brackets below) are accepted as well. A secret's variable may end in `_FILE` and name a file;
4. flags of `satsuma serve` (`--help` lists them).

`satsuma check-config` reports all errors at once, each with its file or variable. An unknown key is an error:

```sh
SATSUMA_ROOM__TICK=soon SATSUMA_HTTP__PORT=80 satsuma check-config
```

Times are like `"15s"`, `"500ms"` or `"90days"`; bytes are numbers. A *network* is a client's IPv4 address or IPv6 /64; limits by network
do not count a proxy's own address.
"#;

/// A setting of the file: its key, its default as written, and its comment.
struct Setting<'a> {
    key: &'a str,
    default: &'a str,
    comment: String,
}

fn settings(file: &str) -> Vec<(&str, Vec<Setting<'_>>)> {
    let mut sections = vec![("", Vec::new())];
    let mut comment = String::new();
    for line in file.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            comment += if comment.is_empty() { "" } else { " " };
            comment += text;
        } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            sections.push((name, Vec::new()));
        } else if let Some((key, default)) = line.split_once(" = ") {
            let comment = std::mem::take(&mut comment);
            sections.last_mut().unwrap().1.push(Setting { key, default, comment });
        } else {
            // The introduction of the file.
            comment.clear();
        }
    }
    sections
}

fn page(file: &str) -> String {
    let mut page = HEAD.to_owned();
    for (section, settings) in settings(file) {
        let title = if section.is_empty() { "Top level".to_owned() } else { section.to_owned() };
        write!(page, "\n## {title}\n\n| setting | default | |\n|---|---|---|\n").unwrap();
        for Setting { key, default, comment } in settings {
            assert!(!comment.is_empty(), "{section}.{key} has no comment");
            // Orange's name of the setting ends the comment.
            let (text, orange) = match comment.rsplit_once(". ") {
                Some((text, name)) if name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') => {
                    (format!("{text}."), format!(" (`{name}`)"))
                }
                _ => (comment, String::new()),
            };
            let default =
                if default == "\"\"" || default == "[]" { String::new() } else { format!("`{default}`") };
            let text = text.replace('|', "\\|");
            writeln!(page, "| `{key}` | {default} | {text}{orange} |").unwrap();
        }
    }
    page
}

#[test]
fn configuration_page_has_every_setting() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let wanted = page(&fs::read_to_string(root.join("config/satsuma.toml")).unwrap());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root.join(PAGE), &wanted).unwrap();
    }
    let found = fs::read_to_string(root.join(PAGE)).unwrap();
    assert!(found == wanted, "{PAGE} is stale: UPDATE_DOCS=1 cargo test --test it configuration_page");
}

#[test]
fn readme_has_at_most_200_lines() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    assert!(readme.lines().count() <= 200);
}

/// The files below a folder with this extension.
fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

/// The events that a source file logs as warnings or errors.
fn events(source: &str) -> impl Iterator<Item = &str> {
    let calls = ["warn!(", "error!("].into_iter().flat_map(|call| source.split(call).skip(1));
    calls.filter_map(|rest| {
        // Fields precede the message, so the event is in the first lines of the call.
        let head = rest.split(';').next()?.trim_start();
        head.strip_prefix("event = \"")?.split('"').next()
    })
}

#[test]
fn every_logged_warning_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let mut sources = Vec::new();
    files(&root.join("src"), "rs", &mut sources);
    let sources: Vec<String> = sources.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let logged: BTreeSet<&str> = sources.iter().flat_map(|source| events(source)).collect();
    assert!(logged.len() > 20, "{logged:?}");
    let missing: Vec<_> = logged.iter().filter(|event| !page.contains(&format!("`{event}`"))).collect();
    assert!(missing.is_empty(), "docs/operations.md does not have {missing:?}");

    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let named = rows.flat_map(|cell| cell.split('`')).filter(|name| {
        name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.chars().any(char::is_uppercase)
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
    });
    let all = sources.concat();
    let unknown: Vec<&str> = named.filter(|name| !all.contains(&format!("\"{name}\""))).collect();
    assert!(unknown.is_empty(), "docs/operations.md has {unknown:?}, which nothing logs");
}

#[test]
fn every_need_of_a_test_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/development.md")).unwrap();
    let mut sources = Vec::new();
    for folder in ["src", "tests"] {
        files(&root.join(folder), "rs", &mut sources);
    }
    let mut needs = BTreeSet::new();
    for source in sources {
        let text = fs::read_to_string(source).unwrap();
        for line in text.lines().map(str::trim).filter(|line| line.starts_with("#[ignore")) {
            let reason = line.strip_prefix("#[ignore = \"needs ").and_then(|rest| rest.strip_suffix("\"]"));
            let reason = reason.unwrap_or_else(|| panic!("{line} names no need"));
            needs.extend(reason.split(" and ").map(str::to_owned));
        }
    }
    assert!(needs.contains("chromium"), "{needs:?}");
    for need in needs {
        assert!(page.contains(&format!("| `{need}` |")), "docs/development.md has no row for {need}");
    }
}

/// A heading's anchor as GitHub makes it.
fn anchor(heading: &str) -> String {
    let words = heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .collect::<String>();
    words.replace(' ', "-")
}

#[test]
fn document_links_have_targets() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    files(&root.join("docs"), "md", &mut pages);
    files(&root.join(".github"), "md", &mut pages);
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(path.exists(), "{}: {target} is not there", page.display());
            if !fragment.is_empty() {
                let text = fs::read_to_string(&path).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|line| anchor(line.trim_start_matches('#').trim()) == fragment);
                assert!(found, "{}: {target} has no such heading", page.display());
            }
        }
    }
}
