//! The client folder's manifest.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use satsuma::orange::manifest::Build;
use tempfile::TempDir;

/// A folder with a complete build, whose manifest is rewritten.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = TempDir::new().expect("a temporary folder");
    copy(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../client-build")), folder.path());
    folder
});

fn copy(from: &Path, to: &Path) {
    for entry in from.read_dir().expect("the folder is readable") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&to).expect("a folder is made");
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("a file is copied");
        }
    }
}

/// An accepted build names no file outside of its folder.
pub fn manifest(data: &[u8]) {
    let folder = FOLDER.path();
    fs::write(folder.join("build/manifest-AAAA0011.js"), data).expect("the manifest is written");
    let Ok(build) = Build::find(folder) else { return };
    for module in build.modules.values().chain([&build.entry]) {
        for url in module.imports.iter().chain([&module.url]) {
            let file = folder.join(url.trim_start_matches('/')).canonicalize().expect("the file is there");
            let folder = folder.canonicalize().expect("the folder is there");
            assert!(file.starts_with(folder), "{url} leads out");
        }
    }
    for path in ["/", "/room", "/a/b/../c", "//", "/%2e%2e/"] {
        let _ = build.routes.find(path);
    }
}
