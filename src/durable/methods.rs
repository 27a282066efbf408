//! The code of methods, in the order in which it is looked up: the operator's script, built-in methods, the callback.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;

use super::builtin;
use super::callback::Callback;
use super::method::{MethodCall, MethodError, MethodOutcome};
use super::script::{self, Script, ScriptLimits};
use crate::clock::now;
use crate::config::{ConfigError, ConfigErrors, DurableConfig};
use crate::metrics::{ByOutcome, Metrics};

/// Interval at which the script's file is read anew.
const RELOAD: Duration = Duration::from_secs(2);

/// All code of methods, which an object asks for each call.
#[derive(Debug)]
pub struct Methods {
    script: Option<Script>,
    callback: Option<Callback>,
    metrics: Arc<Metrics>,
}

/// Checks the script that a configuration names.
///
/// # Errors
/// The error with which [`Methods::load`] would fail.
pub fn check(config: &DurableConfig) -> Result<(), ConfigErrors> {
    let Some(path) = config.script.as_ref() else { return Ok(()) };
    script::check(path, &limits(config)).map_err(|problem| unusable(config, problem))
}

impl Methods {
    /// Loads the configured code and starts its threads.
    ///
    /// # Errors
    /// The problem of the script, or of the callback's client.
    pub fn load(config: &DurableConfig, metrics: Arc<Metrics>) -> Result<Self, ConfigErrors> {
        let threads = match config.script_threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let script = config.script.as_ref().map(|path| {
            Script::load(path, limits(config), threads, metrics.clone())
                .map_err(|problem| unusable(config, problem))
        });
        let callback = Callback::new(config).map_err(|error| {
            let key = Some("durable.callback_url".to_owned());
            ConfigErrors(vec![ConfigError { origin: "callback".to_owned(), key, problem: error.to_string() }])
        });
        Ok(Self { script: script.transpose()?, callback: callback?, metrics })
    }

    /// Loads the script anew when its file changes; ends at once without a script.
    pub async fn keep_fresh(&self) {
        if let Some(script) = &self.script {
            script.keep_fresh(RELOAD).await;
        }
    }

    /// Calls a method. The caller applies the outcome, and makes one call at a time for each object.
    ///
    /// # Errors
    /// [`MethodError`]; nothing is to be applied.
    pub async fn call(&self, call: MethodCall) -> Result<MethodOutcome, MethodError> {
        if let Some(script) = &self.script {
            let found = self.timed("script", script.call(call.clone())).await;
            if !matches!(found, Err(MethodError::NotFound)) {
                return found;
            }
        }
        let built_in = async { builtin::call(&call).unwrap_or(Err(MethodError::NotFound)) };
        let found = self.timed("builtin", built_in).await;
        if !matches!(found, Err(MethodError::NotFound)) {
            return found;
        }
        match &self.callback {
            Some(callback) => self.timed("callback", callback.call(&call)).await,
            None => Err(MethodError::NotFound),
        }
    }

    /// Waits for a call by this kind of code and counts it, unless the code does not have the method.
    async fn timed(
        &self,
        kind: &'static str,
        call: impl Future<Output = Result<MethodOutcome, MethodError>>,
    ) -> Result<MethodOutcome, MethodError> {
        let start = now();
        let result = call.await;
        if let Some(outcome) = label(&result) {
            let seconds = start.elapsed().as_secs_f64();
            let calls = self.metrics.durable_calls.get_or_create(&ByOutcome { kind, outcome });
            Histogram::observe(&calls, seconds);
        }
        result
    }
}

/// The outcome of a call as a label; none if there is no such method.
fn label(result: &Result<MethodOutcome, MethodError>) -> Option<&'static str> {
    Some(match result {
        Ok(_) => "done",
        Err(MethodError::NotFound) => return None,
        Err(MethodError::Invalid(_)) => "invalid",
        Err(MethodError::Failed(_)) => "failed",
        Err(MethodError::Limit(_)) => "limit",
        Err(MethodError::TimedOut) => "timed_out",
        Err(MethodError::Unavailable(_)) => "unavailable",
        Err(MethodError::Busy(_)) => "busy",
    })
}

fn limits(config: &DurableConfig) -> ScriptLimits {
    ScriptLimits { time: config.script_time, memory_bytes: config.script_memory_bytes }
}

fn unusable(config: &DurableConfig, problem: String) -> ConfigErrors {
    let path = config.script.as_deref().unwrap_or(Path::new(""));
    let key = Some("durable.script".to_owned());
    ConfigErrors(vec![ConfigError { origin: path.display().to_string(), key, problem }])
}
