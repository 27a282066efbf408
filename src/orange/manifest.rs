//! A production build of the client: found, parsed and validated at start-up.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

use serde::Deserialize;

use super::loader::{Loader, is_resource};
use super::routes::{Route, RoutePosition, Routes};

/// Prefix of a manifest file.
const ASSIGNED: &str = "window.__remixManifest=";

/// Required routes: those whose data the client needs, and the name form.
const NEEDED: [&str; 6] = [
    "root",
    "routes/_index",
    "routes/_room",
    "routes/_room.$roomName._index",
    "routes/_room.$roomName.room",
    "routes/set-username",
];

/// The icons of Orange's pages.
#[rustfmt::skip]
const ICONS: [(&str, &str); 4] = [
    ("apple-touch-icon.png", r#"rel="apple-touch-icon" sizes="180x180" href="/apple-touch-icon.png?v=orange-emoji""#),
    ("favicon-32x32.png", r#"rel="icon" type="image/png" sizes="32x32" href="/favicon-32x32.png?v=orange-emoji""#),
    ("favicon-16x16.png", r#"rel="icon" type="image/png" sizes="16x16" href="/favicon-16x16.png?v=orange-emoji""#),
    ("favicon.ico", r#"rel="shortcut icon" href="/favicon.ico?v=orange""#),
];

/// A build of the client.
#[derive(Clone, Debug)]
pub struct Build {
    /// URL of the manifest.
    pub url: String,
    /// The module that starts the client.
    pub entry: Module,
    /// The routes' modules, by route id.
    pub modules: BTreeMap<String, Module>,
    /// The mapping from a path to routes.
    pub routes: Routes,
    /// The existing icons, as attributes of links.
    pub icons: Vec<&'static str>,
    /// A warning for the operator.
    pub warning: Option<String>,
}

/// A module of the build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// URL of the module.
    pub url: String,
    /// URLs of the modules that it imports.
    pub imports: Vec<String>,
    /// URLs of the style sheets of its page.
    pub styles: Vec<String>,
}

/// A directory without a usable build. Each error names the missing thing and the place.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBuild {
    /// A directory or file cannot be read.
    #[error("client.dir: {path} cannot be read: {error}; it is to be the public/ folder of a production build of Orange", path = .path.display())]
    Unreadable {
        /// The directory or file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// There is no manifest.
    #[error("client.dir: there is no {path}/manifest-*.js; client.dir is to be the public/ folder of a production build of Orange (npm run build)", path = .path.display())]
    NoManifest {
        /// The searched directory.
        path: PathBuf,
    },
    /// The file is not a manifest.
    #[error("client.dir: {path} is no manifest of a Remix build: {problem}", path = .path.display())]
    NoRemix {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: String,
    },
    /// The manifest is of another application, or of an unknown version of the client.
    #[error("client.dir: {path} is not the manifest of an Orange client that this version knows: {problem}", path = .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The missing or unknown part.
        problem: String,
    },
    /// A file of the build is missing.
    #[error("client.dir: {path} names {url}, which is not in {dir}; is the build complete?", path = .path.display(), dir = .dir.display())]
    Incomplete {
        /// The manifest.
        path: PathBuf,
        /// The missing file's URL.
        url: String,
        /// The build's directory.
        dir: PathBuf,
    },
}

#[derive(Deserialize)]
struct ManifestFile {
    entry: WrittenModule,
    routes: BTreeMap<String, WrittenRoute>,
    url: String,
}

#[derive(Deserialize)]
struct WrittenModule {
    module: String,
    #[serde(default)]
    imports: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenRoute {
    id: String,
    parent_id: Option<String>,
    path: Option<String>,
    #[serde(default)]
    index: bool,
    #[serde(default)]
    has_loader: bool,
    #[serde(default)]
    css: Vec<String>,
    #[serde(flatten)]
    module: WrittenModule,
}

impl Build {
    /// Finds and reads the newest build in a `public/` directory.
    ///
    /// # Errors
    /// [`InvalidBuild`].
    pub fn find(dir: &Path) -> Result<Self, InvalidBuild> {
        let folder = dir.join("build");
        let mut manifests = manifests(dir, &folder)?;
        manifests.sort();
        let Some((_, path)) = manifests.pop() else {
            return Err(InvalidBuild::NoManifest { path: folder });
        };
        let warning = (!manifests.is_empty()).then(|| {
            let path = path.display();
            format!("client.dir holds {} builds; {path} is the newest and is used", manifests.len() + 1)
        });
        let text = read(&path)?;
        let written =
            parse(&text).map_err(|problem| InvalidBuild::NoRemix { path: path.clone(), problem })?;
        judge(&written).map_err(|problem| InvalidBuild::Foreign { path: path.clone(), problem })?;
        let ManifestFile { entry, routes, url } = written;
        let file = |url: &str| {
            let found = inside(url).map(|inside| dir.join(inside)).filter(|file| file.is_file());
            let (path, dir, url) = (path.clone(), dir.to_owned(), url.to_owned());
            found.ok_or(InvalidBuild::Incomplete { path, url, dir })
        };
        file(&url)?;
        for named in entry.imports.iter().chain([&entry.module]) {
            file(named)?;
        }
        let mut modules = BTreeMap::new();
        for route in routes.values() {
            let mut styles = route.css.clone();
            styles.extend(styles_in(&read(&file(&route.module.module)?)?));
            for import in &route.module.imports {
                file(import)?;
            }
            modules.insert(route.id.clone(), route.module.with(styles));
        }
        let icons = ICONS.iter().filter(|(name, _)| dir.join(name).is_file()).map(|(_, link)| *link);
        let icons = icons.collect();
        let routes = Routes::new(routes.into_values().map(|route| Route {
            id: route.id,
            parent: route.parent_id,
            path: route.path,
            place: if route.index { RoutePosition::Index } else { RoutePosition::Child },
        }));
        Ok(Self { url, entry: entry.with(Vec::new()), modules, routes, icons, warning })
    }
}

impl WrittenModule {
    fn with(&self, styles: Vec<String>) -> Module {
        Module { url: self.module.clone(), imports: self.imports.clone(), styles }
    }
}

/// Returns the manifests in a directory with their modification times.
fn manifests(dir: &Path, folder: &Path) -> Result<Vec<(SystemTime, PathBuf)>, InvalidBuild> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        |error| InvalidBuild::Unreadable { path, error }
    };
    dir.read_dir().map_err(unreadable(dir))?;
    let entries = match folder.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unreadable(folder))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(unreadable(folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("manifest-") && name.ends_with(".js") {
            let written = entry.metadata().and_then(|data| data.modified());
            found.push((written.map_err(unreadable(&entry.path()))?, entry.path()));
        }
    }
    Ok(found)
}

/// Returns the relative path of a URL; `None` if it leads out of the directory.
fn inside(url: &str) -> Option<&Path> {
    let path = Path::new(url.strip_prefix('/')?);
    path.components().all(|part| matches!(part, Component::Normal(_))).then_some(path)
}

fn read(path: &Path) -> Result<String, InvalidBuild> {
    fs::read_to_string(path).map_err(|error| InvalidBuild::Unreadable { path: path.to_owned(), error })
}

fn parse(text: &str) -> Result<ManifestFile, String> {
    let json = text.trim().strip_prefix(ASSIGNED);
    let json = json.ok_or_else(|| format!("it does not begin with {ASSIGNED}"))?;
    serde_json::from_str(json.trim_end_matches(';')).map_err(|error| error.to_string())
}

/// Checks that this server has the data of all routes.
fn judge(written: &ManifestFile) -> Result<(), String> {
    if let Some(missing) = NEEDED.iter().find(|&&id| !written.routes.contains_key(id)) {
        return Err(format!("the route {missing} is missing"));
    }
    for (id, route) in &written.routes {
        if *id != route.id {
            return Err(format!("the route {id} says that it is {}", route.id));
        }
        if route.has_loader && Loader::of(id).is_none() && !is_resource(id) {
            return Err(format!("it knows nothing of the data of the route {id}"));
        }
        if route.path.as_deref().is_some_and(|path| path.split('/').any(|part| part.ends_with('?'))) {
            return Err(format!("the path of the route {id} has optional parts"));
        }
    }
    Ok(())
}

/// Returns the style sheets that a module names: this kind of build lists them nowhere else.
fn styles_in(module: &str) -> impl Iterator<Item = String> {
    const END: &str = ".css\"";
    module.match_indices(END).filter_map(|(end, _)| {
        let start = module[..end].rfind('"')? + 1;
        let url = &module[start..end + END.len() - 1];
        (url.starts_with("/build/") && url.len() < 256).then(|| url.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::*;

    /// A manifest in Remix's format.
    fn manifest() -> Value {
        let route = |id: &str, parent: Option<&str>, path: Option<&str>, index: bool| {
            let module = format!("/build/{}.js", id.replace('/', "_"));
            let mut route = json!({"id": id, "module": module, "imports": ["/build/shared.js"], "hasLoader": true,
                                   "hasAction": false, "hasErrorBoundary": false});
            for (key, value) in [("parentId", parent), ("path", path)] {
                if let Some(value) = value {
                    route[key] = value.into();
                }
            }
            if index {
                route["index"] = true.into();
            }
            (id.to_owned(), route)
        };
        let routes: serde_json::Map<_, _> = [
            route("root", None, Some(""), false),
            route("routes/_index", Some("root"), None, true),
            route("routes/_room", Some("root"), None, false),
            route("routes/_room.$roomName._index", Some("routes/_room"), Some(":roomName"), true),
            route("routes/_room.$roomName.room", Some("routes/_room"), Some(":roomName/room"), false),
            route("routes/set-username", Some("root"), Some("set-username"), false),
        ]
        .into_iter()
        .collect();
        let mut manifest = json!({"entry": {"module": "/build/entry.js", "imports": []}, "routes": routes,
                                  "url": "/build/manifest-1.js", "version": "1"});
        manifest["routes"]["routes/set-username"]["hasLoader"] = false.into();
        manifest
    }

    fn build(manifest: &Value) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("build");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("manifest-1.js"), format!("{ASSIGNED}{manifest};\n")).unwrap();
        let routes = manifest["routes"].as_object().unwrap().values();
        let modules = routes.map(|route| route["module"].as_str().unwrap());
        for url in modules.chain(["/build/entry.js", "/build/shared.js"]) {
            fs::write(dir.path().join(&url[1..]), "var s=\"/build/_assets/a.css\",t=\"b.css\";").unwrap();
        }
        dir
    }

    fn refused(manifest: &Value) -> String {
        let dir = build(manifest);
        Build::find(dir.path()).unwrap_err().to_string().replace(dir.path().to_str().unwrap(), "DIR")
    }

    #[test]
    fn complete_build_is_read() {
        let dir = build(&manifest());
        fs::write(dir.path().join("favicon.ico"), "").unwrap();
        let build = Build::find(dir.path()).unwrap();
        assert_eq!(build.url, "/build/manifest-1.js");
        assert_eq!(build.modules.len(), 6);
        let root = &build.modules["root"];
        assert_eq!(root.imports, ["/build/shared.js"]);
        assert_eq!(root.styles, ["/build/_assets/a.css"]);
        assert_eq!(build.routes.find("/a/room").unwrap().len(), 3);
        assert_eq!(build.icons.len(), 1);
        assert_eq!(build.warning, None);
    }

    #[test]
    fn newest_of_several_builds_is_used_with_warning() {
        let dir = build(&manifest());
        let mut newer = manifest();
        newer["url"] = "/build/manifest-0.js".into();
        let path = dir.path().join("build/manifest-0.js");
        fs::write(&path, format!("{ASSIGNED}{newer};")).unwrap();
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000_000_000);
        fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        let build = Build::find(dir.path()).unwrap();
        assert_eq!(build.url, "/build/manifest-0.js");
        let warning = build.warning.unwrap();
        assert!(warning.contains("2 builds") && warning.contains("manifest-0.js"), "{warning}");
    }

    #[test]
    fn missing_or_invalid_build_error_names_the_path() {
        let missing = Build::find(Path::new("/nowhere/public")).unwrap_err().to_string();
        assert!(missing.starts_with("client.dir: /nowhere/public cannot be read: "), "{missing}");
        let dir = tempfile::tempdir().unwrap();
        let empty = Build::find(dir.path()).unwrap_err().to_string();
        let place = dir.path().join("build");
        assert!(empty.contains(&format!("there is no {}/manifest-*.js", place.display())), "{empty}");

        let dir = build(&manifest());
        let path = dir.path().join("build/manifest-1.js");
        for (text, problem) in
            [("export {}", "does not begin with"), ("window.__remixManifest={};", "missing field")]
        {
            fs::write(&path, text).unwrap();
            let error = Build::find(dir.path()).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains("manifest-1.js"), "{error}");
        }
    }

    #[test]
    fn foreign_or_incomplete_build_is_refused() {
        let mut other = manifest();
        other["routes"].as_object_mut().unwrap().remove("routes/_room");
        assert!(refused(&other).ends_with("the route routes/_room is missing"));

        let mut other = manifest();
        let mut admin = other["routes"]["routes/_index"].clone();
        admin["id"] = "routes/admin".into();
        other["routes"]["routes/admin"] = admin;
        assert!(refused(&other).ends_with("it knows nothing of the data of the route routes/admin"));
        other["routes"]["routes/admin"]["hasLoader"] = false.into();
        Build::find(build(&other).path()).unwrap();

        let mut other = manifest();
        other["entry"]["module"] = "/build/gone.js".into();
        assert_eq!(
            refused(&other),
            "client.dir: DIR/build/manifest-1.js names /build/gone.js, which is not in DIR; is the build complete?"
        );
        // A second slash, or two dots, once gave access to every file of the machine.
        let outside = tempfile::NamedTempFile::new().unwrap();
        let outside = format!("/{}", outside.path().display());
        for url in ["gone.js", "https://evil.example/a.js", &outside, "/build/../../../../../../etc/passwd"] {
            other["entry"]["module"] = url.into();
            assert!(refused(&other).contains("which is not in DIR"), "{url}");
        }
        let mut other = manifest();
        other["entry"]["imports"] = json!(["/build/shared.js", "/build/gone.js"]);
        assert!(refused(&other).contains("names /build/gone.js, which is not in DIR"));
    }

    /// An arbitrary value for any place in a manifest.
    fn anything() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "(/build/)?(\\.\\./|/|root|routes/_index|:|\\?|\\*|[ -~é]){0,6}".prop_map(Value::from),
            Just(json!([])),
            Just(json!({})),
            Just(json!(["/build/shared.js", 1])),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn arbitrary_text_is_refused(text in ".{0,200}", is_assigned in any::<bool>()) {
            let prefix = if is_assigned { ASSIGNED } else { "" };
            let read = parse(&format!("{prefix}{text}"));
            prop_assert!(read.is_err());
            prop_assert!(styles_in(&text).all(|url| url.starts_with("/build/") && url.ends_with(".css")));
        }

        #[test]
        fn accepted_manifest_stays_inside_the_folder(
            changes in prop::collection::vec((0..6_usize, prop::sample::select(&[
                "id", "parentId", "path", "index", "module", "imports", "css", "hasLoader",
            ][..]), anything()), 1..4),
            entry in prop::option::of(anything()),
        ) {
            let dir = build(&manifest());
            let mut changed = manifest();
            for (route, field, value) in changes {
                changed["routes"].as_object_mut().unwrap().values_mut().nth(route).unwrap()[field] = value;
            }
            if let Some(entry) = entry {
                changed["entry"]["module"] = entry;
            }
            fs::write(dir.path().join("build/manifest-1.js"), format!("{ASSIGNED}{changed};")).unwrap();
            match Build::find(dir.path()) {
                Ok(build) => {
                    for module in build.modules.values().chain([&build.entry]) {
                        for url in module.imports.iter().chain([&module.url]) {
                            let file = dir.path().join(&url[1..]).canonicalize().unwrap();
                            prop_assert!(file.starts_with(dir.path().canonicalize().unwrap()), "{}", url);
                        }
                    }
                    for path in ["/", "/a", "/a/room", "//", "/a/b/c", "/set-username"] {
                        let _ = build.routes.find(path);
                    }
                }
                Err(error) => prop_assert!(error.to_string().starts_with("client.dir: ")),
            }
        }
    }
}
