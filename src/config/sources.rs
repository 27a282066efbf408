//! Sources of settings: the file, overridden by the environment, overridden by flags.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::Config;
use super::error::{ConfigError, ConfigErrors};
use super::rules::{Violation, violations};
use super::shown::SettingOrigins;

/// Orange's variables and the keys that they set.
#[rustfmt::skip]
pub(super) const ORANGE: [(&str, &str); 20] = [
    ("CALLS_APP_ID", "calls.app_id"),
    ("CALLS_APP_SECRET", "calls.app_secret"),
    ("CALLS_API_URL", "calls.api_url"),
    ("API_EXTRA_PARAMS", "calls.extra_params"),
    ("TURN_SERVICE_ID", "turn.service_id"),
    ("TURN_SERVICE_TOKEN", "turn.service_token"),
    ("TRACE_LINK", "client.trace_link"),
    ("USER_DIRECTORY_URL", "client.user_directory_url"),
    ("MAX_WEBCAM_FRAMERATE", "client.max_webcam_framerate"),
    ("MAX_WEBCAM_BITRATE", "client.max_webcam_bitrate"),
    ("MAX_WEBCAM_QUALITY_LEVEL", "client.max_webcam_quality_level"),
    ("MAX_API_HISTORY", "client.max_api_history"),
    ("EXPERIMENTAL_SIMULCAST_ENABLED", "client.simulcast"),
    ("E2EE_ENABLED", "client.e2ee"),
    ("DISABLE_LOBBY_ENFORCEMENT", "client.disable_lobby_enforcement"),
    ("FEEDBACK_URL", "feedback.url"),
    ("DASHBOARD_WORKER_URL", "feedback.dashboard_worker_url"),
    ("OPENAI_API_TOKEN", "ai.api_token"),
    ("OPENAI_MODEL_ENDPOINT", "ai.model_endpoint"),
    ("OPENAI_MODEL_ID", "ai.model_id"),
];

/// Keys whose variables have a `_FILE` form.
pub(super) const SECRETS: [&str; 8] = [
    "calls.app_secret",
    "sfu.api_secret",
    "turn.service_token",
    "feedback.url",
    "ai.api_token",
    "assistant.token",
    "durable.callback_secret",
    "cluster.password",
];

/// The lists of tables with keys, whose values no error shows.
const KEYS: [&str; 3] = ["auth.keys", "durable.keys", "webhooks"];

const PREFIX: &str = "SATSUMA_";

/// Variables that are no settings: the path of the configuration file, and the server of operators' commands.
const COMMAND_LINE: [&str; 4] =
    ["SATSUMA_CONFIG", "SATSUMA_SERVER", "SATSUMA_OPERATOR_TOKEN", "SATSUMA_OPERATOR_TOKEN_FILE"];

/// Settings on the command line. The field comments are the help texts.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Address to listen on, over http.listen; port 0 lets the system choose.
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Data directory, over data_dir.
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Speak https with a certificate of the server's own making, to try it in a LAN.
    #[arg(long, global = true)]
    pub tls_self_signed: bool,
    /// The public/ folder of a build of the Orange client, over client.dir.
    #[arg(long, global = true, value_name = "DIR")]
    pub client: Option<PathBuf>,
}

/// Former keys of settings, which are accepted with a warning: old key, new key.
const RENAMED: [(&str, &str); 2] =
    [("limits.held_back", "limits.throttle_timeout"), ("limits.kept_files_bytes", "limits.file_cache_bytes")];

struct Setting {
    value: Value,
    origin: String,
}

/// The settings read so far, by dotted key; a later source replaces an earlier one's.
pub(super) struct Sources {
    /// All keys with their defaults, whose types determine the parsing of a variable's text.
    known: BTreeMap<String, Value>,
    settings: BTreeMap<String, Setting>,
    /// Keys that are set to an unreadable value. No rule that involves one is checked.
    unsettled: BTreeSet<String>,
    faults: Vec<ConfigError>,
    warnings: Vec<String>,
}

impl Sources {
    pub(super) fn new() -> Self {
        Self {
            known: Config::default().to_settings(),
            settings: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Adds the settings of the file at `path`.
    pub(super) fn read_file(&mut self, path: &Path) {
        let origin = path.display().to_string();
        match read_toml(path) {
            Ok(table) => self.add_table(&origin, table),
            Err(problem) => {
                self.unsettled.extend(self.known.keys().cloned());
                self.fault(origin, None, problem);
            }
        }
    }

    fn add_table(&mut self, origin: &str, table: Table) {
        for (name, value) in table {
            match value {
                Value::Table(section) if self.has_section(&name) => {
                    let section = section.into_iter().map(|(key, value)| (format!("{name}.{key}"), value));
                    // Former keys first, so that the new one wins if a file has both.
                    let (former, current): (Vec<_>, Vec<_>) =
                        section.partition(|(key, _)| RENAMED.iter().any(|(old, _)| old == key));
                    for (key, value) in former.into_iter().chain(current) {
                        self.set_known(origin, key, value);
                    }
                }
                _ if self.has_section(&name) => {
                    let problem = format!("is a section; write [{name}] and its settings below it");
                    self.fault(origin.to_owned(), Some(name), problem);
                }
                Value::Table(_) if !self.known.contains_key(&name) => {
                    let problem = self.unknown_section_problem(&name);
                    self.fault(origin.to_owned(), Some(name), problem);
                }
                value => self.set_known(origin, name, value),
            }
        }
    }

    fn set_known(&mut self, origin: &str, key: String, value: Value) {
        let key = match RENAMED.iter().find(|(old, _)| *old == key) {
            Some((old, new)) => {
                self.warnings.push(format!("{origin}: {old} is called {new} now"));
                (*new).to_owned()
            }
            None => key,
        };
        if self.known.contains_key(&key) {
            self.set(origin.to_owned(), key, value);
        } else {
            let problem = self.unknown_problem(&key);
            self.fault(origin.to_owned(), Some(key), problem);
        }
    }

    /// Adds the settings of environment variables: Satsuma's override Orange's.
    pub(super) fn read_environment(&mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) {
        let mut variables: BTreeMap<String, OsString> = variables
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
            .collect();
        // Those of the command line, which the caller has read.
        for name in COMMAND_LINE {
            variables.remove(name);
        }

        for (name, key) in ORANGE {
            self.take_variable(&mut variables, name, key);
        }
        for (old, new) in RENAMED {
            let (old, new_name) = (variable(old), variable(new));
            if variables.contains_key(&old) {
                self.warnings.push(format!("{old} is called {new_name} now"));
                self.take_variable(&mut variables, &old, new);
            }
        }
        for key in self.known.keys().cloned().collect::<Vec<_>>() {
            self.take_variable(&mut variables, &variable(&key), &key);
        }
        self.refuse_unknown(variables.into_keys());
    }

    fn take_variable(&mut self, variables: &mut BTreeMap<String, OsString>, name: &str, key: &str) {
        let value = variables.remove(name);
        let file_name = format!("{name}_FILE");
        let file = SECRETS.contains(&key).then(|| variables.remove(&file_name)).flatten();
        let (origin, text) = match (value, file) {
            (None, None) => return,
            (Some(_), Some(_)) => {
                (name.to_owned(), Err(format!("{file_name} is set as well; set only one of them")))
            }
            (Some(value), None) => {
                (name.to_owned(), value.into_string().map_err(|_| "is not Unicode".to_owned()))
            }
            (None, Some(path)) => (file_name, read_secret(Path::new(&path))),
        };
        match text {
            Ok(text) => {
                let value = value_like(&self.known[key], text);
                self.set(origin, key.to_owned(), value);
            }
            Err(problem) => self.fault(origin, Some(key.to_owned()), problem),
        }
    }

    /// Reports the remaining variables with the `SATSUMA_` prefix, after all known ones were taken.
    fn refuse_unknown(&mut self, names: impl Iterator<Item = String>) {
        let mut ignored = Vec::new();
        for name in names {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            match self.resembled(&name) {
                Some((_, right)) => self.fault(name, None, format!("no such setting; did you mean {right}?")),
                None if rest.contains("__") => {
                    let key = rest.to_lowercase().replace("__", ".");
                    let problem = self.unknown_problem(&key);
                    self.fault(name, Some(key), problem);
                }
                None => ignored.push(name),
            }
        }
        if !ignored.is_empty() {
            self.warnings.push(format!("unknown variables, ignored: {}", ignored.join(", ")));
        }
    }

    /// Returns the key and the variable likely meant by the unknown variable `name`.
    fn resembled(&self, name: &str) -> Option<(&str, String)> {
        let variables = self.known.keys().map(|key| (key, variable(key)));
        let files = self.known.keys().filter(|key| SECRETS.contains(&key.as_str()));
        let files = files.map(|key| (key, format!("{}_FILE", variable(key))));
        resembled(name, variables.chain(files))
    }

    /// Adds the settings of flags.
    pub(super) fn read_flags(&mut self, flags: &Flags) {
        if let Some(listen) = &flags.listen {
            self.set("--listen".into(), "http.listen".into(), listen.clone().into());
        }
        if flags.tls_self_signed {
            self.set("--tls-self-signed".into(), "http.tls_self_signed".into(), true.into());
        }
        let folders =
            [("--data-dir", "data_dir", &flags.data_dir), ("--client", "client.dir", &flags.client)];
        for (flag, key, folder) in folders {
            match folder.as_deref().map(Path::to_str) {
                Some(Some(dir)) => self.set(flag.into(), key.into(), dir.into()),
                Some(None) => self.fault(flag.into(), Some(key.into()), "is not Unicode".into()),
                None => {}
            }
        }
    }

    /// Returns the configuration and warnings.
    ///
    /// # Errors
    /// All errors in it.
    pub(super) fn finish(mut self) -> Result<(Config, Vec<String>, SettingOrigins), ConfigErrors> {
        let mut valid = Table::new();
        for (key, Setting { value, origin }) in &self.settings {
            // Deserialized one at a time, so that every error is found and belongs to one setting.
            let mut alone = Table::new();
            insert(&mut alone, key, value.clone());
            if let Err(error) = Config::deserialize(alone) {
                self.unsettled.insert(key.clone());
                let problem = value_problem(key, &self.known[key], value, error.message());
                let (origin, key) = (origin.clone(), Some(key.clone()));
                self.faults.push(ConfigError { origin, key, problem });
            } else {
                insert(&mut valid, key, value.clone());
            }
        }
        #[expect(clippy::expect_used, reason = "each setting was valid, and none knows another")]
        let config = Config::deserialize(valid).expect("valid settings are valid together");
        for Violation { keys, problem } in violations(&config) {
            if keys.iter().any(|&key| self.unsettled.contains(key)) {
                continue;
            }
            let origin = keys.iter().find_map(|&key| self.settings.get(key));
            let origin = origin.map_or("the defaults", |setting| &setting.origin).to_owned();
            self.faults.push(ConfigError { origin, key: Some(keys[0].to_owned()), problem });
        }
        if !self.faults.is_empty() {
            return Err(ConfigErrors(self.faults));
        }
        let origins = self.settings.into_iter().map(|(key, Setting { origin, .. })| (key, origin));
        Ok((config, self.warnings, origins.collect()))
    }

    fn set(&mut self, origin: String, key: String, value: Value) {
        self.unsettled.remove(&key);
        self.settings.insert(key, Setting { value, origin });
    }

    fn fault(&mut self, origin: String, key: Option<String>, problem: String) {
        self.unsettled.extend(key.clone());
        self.faults.push(ConfigError { origin, key, problem });
    }

    fn has_section(&self, name: &str) -> bool {
        self.known.keys().any(|key| key.split_once('.').is_some_and(|(section, _)| section == name))
    }

    /// Returns the error for an unknown key, with the one that was likely meant, or all of its section.
    fn unknown_problem(&self, key: &str) -> String {
        if let Some((right, _)) = self.resembled(&variable(key)) {
            return format!("no such setting; did you mean {right}?");
        }
        let section = key.split_once('.').map(|(section, _)| section);
        match section.filter(|section| self.has_section(section)) {
            Some(section) => {
                let siblings = self.known.keys().filter_map(|key| key.split_once('.'));
                let names = siblings.filter(|(name, _)| *name == section).map(|(_, key)| key);
                format!("no such setting; [{section}] has {}", list(names))
            }
            None => format!("no such setting; there are {}", list(self.tops())),
        }
    }

    fn unknown_section_problem(&self, name: &str) -> String {
        let resembles = |top: &String| strsim::damerau_levenshtein(top.trim_matches(['[', ']']), name) < 2;
        match self.tops().find(resembles) {
            Some(right) => format!("no such section; did you mean {right}?"),
            None => format!("no such section; there are {}", list(self.tops())),
        }
    }

    /// Sections, in brackets, and the keys that are in none.
    fn tops(&self) -> impl Iterator<Item = String> {
        self.known.keys().map(|key| match key.split_once('.') {
            Some((section, _)) => format!("[{section}]"),
            None => key.clone(),
        })
    }
}

/// Returns the name of the variable that sets `key`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

/// Returns the one of `variables`, beside its key, most similar to `name`: equal letters and digits, or an edit distance of one
/// or two, with or without the section.
///
/// A container platform sets variables for a service of our name, such as `SATSUMA_PORT_8787_TCP_ADDR`, which
/// resemble none.
fn resembled<'k>(
    name: &str,
    variables: impl Iterator<Item = (&'k String, String)>,
) -> Option<(&'k str, String)> {
    let letters = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_uppercase()).collect()
    };
    let wanted = letters(name.strip_prefix(PREFIX)?);
    let distance = |(key, variable): (&'k String, String)| {
        let whole = letters(&variable[PREFIX.len()..]);
        let last = letters(key.rsplit('.').next().unwrap_or(key));
        // In a short name, two edits make another word.
        let most = if whole.len() < 8 { 1 } else { 2 };
        let edits = strsim::damerau_levenshtein(&wanted, &whole);
        let edits = if wanted == last { 0 } else { edits };
        (edits <= most).then_some((edits, variable, key))
    };
    let (_, variable, key) = variables.filter_map(distance).min()?;
    Some((key, variable))
}

fn list(names: impl Iterator<Item = impl Into<String>>) -> String {
    let names: BTreeSet<String> = names.map(Into::into).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

/// Inserts `value` at the dotted `key`.
fn insert(table: &mut Table, key: &str, value: Value) {
    let Some((section, key)) = key.split_once('.') else {
        table.insert(key.to_owned(), value);
        return;
    };
    let section = table.entry(section).or_insert_with(|| Table::new().into());
    if let Value::Table(section) = section {
        section.insert(key.to_owned(), value);
    }
}

fn read_toml(path: &Path) -> Result<Table, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    text.parse().map_err(|error| syntax_problem(&text, &error))
}

fn read_secret(path: &Path) -> Result<String, String> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("{} is empty", path.display())),
        secret => Ok(secret.to_owned()),
    }
}

/// Parses a variable's text as the default's type; on failure keeps the text, for the checks to refuse.
fn value_like(default: &Value, text: String) -> Value {
    let value = match (default, text.trim()) {
        (Value::Integer(_), number) => number.parse().ok().map(Value::Integer),
        (Value::Boolean(_), "true" | "1") => Some(Value::Boolean(true)),
        (Value::Boolean(_), "false" | "0") => Some(Value::Boolean(false)),
        (Value::Array(_), array) if array.starts_with('[') => array.parse().ok(),
        (Value::Table(_), table) if table.starts_with('{') => table.parse().ok(),
        (Value::Array(_), listed) => {
            let items = listed.split(',').map(str::trim).filter(|item| !item.is_empty());
            Some(items.map(Value::from).collect::<Vec<_>>().into())
        }
        _ => None,
    };
    value.unwrap_or(Value::String(text))
}

/// Returns the reason for refusing `value` instead of `default`, in terms of the file rather than of Rust.
fn value_problem(key: &str, default: &Value, value: &Value, problem: &str) -> String {
    match (default, value) {
        // Not shown, since it may be a key.
        (Value::Array(_), Value::String(_) | Value::Integer(_)) if KEYS.contains(&key) => {
            format!("is not a list of tables; write [[{key}]], and the settings of each below it")
        }
        // An address may have a password.
        (Value::Array(_), value) if key == "cluster.nats" && !value.is_array() => {
            "is not a list; write for example [\"nats://10.0.0.1:4222\"]".to_owned()
        }
        (Value::Integer(_), _) => format!("{value} is not a whole number from 0 to {}", u32::MAX),
        (Value::Boolean(_), _) => format!("{value} is neither true nor false"),
        (Value::Array(_), Value::Array(_)) => problem.to_owned(),
        (Value::Array(_), _) => format!("{value} is not a list; write for example [\"…\", \"…\"]"),
        _ => problem.to_owned(),
    }
}

/// Returns the position and error in an invalid TOML text, without the line itself, since it may hold a secret.
fn syntax_problem(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
    format!("line {line}, column {column}: {}", error.message())
}
