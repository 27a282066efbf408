//! Settings as they are shown, without secrets.

use std::collections::BTreeMap;

use serde::Serialize;
use toml::{Table, Value};

use super::Config;

/// The source of each setting that is set, by its dotted key: the file, the variable or the flag.
pub type SettingOrigins = BTreeMap<String, String>;

/// A setting in force.
#[derive(Clone, Debug, Serialize)]
pub struct ShownSetting {
    /// Its default.
    pub default: Value,
    /// Its dotted key.
    pub key: String,
    /// Its source; none for a default.
    pub origin: Option<String>,
    /// Its value, in the file's form; a secret is masked.
    pub value: Value,
}

impl Config {
    /// Returns every setting by its dotted key, in the file's form; secrets are masked.
    pub(super) fn to_settings(&self) -> BTreeMap<String, Value> {
        #[expect(clippy::expect_used, reason = "every field is a TOML value or a struct of them")]
        let table = Table::try_from(self).expect("a configuration is a TOML table");
        let mut settings = BTreeMap::new();
        for (name, value) in table {
            match value {
                Value::Table(section) => {
                    settings.extend(section.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)))
                }
                value => drop(settings.insert(name, value)),
            }
        }
        settings
    }

    /// All settings with their sources, in the order of their keys.
    pub fn shown(&self, origins: &SettingOrigins) -> Vec<ShownSetting> {
        let mut defaults = Self::default().to_settings();
        let shown = self.to_settings().into_iter().map(|(key, value)| ShownSetting {
            // Every key has a default.
            default: defaults.remove(&key).unwrap_or_else(|| value.clone()),
            origin: origins.get(&key).cloned(),
            key,
            value,
        });
        shown.collect()
    }
}
