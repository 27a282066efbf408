//! SHELL: methods of the operator's own script, run in a JavaScript engine.
//!
//! The script is an ES module that exports a class, as for Cloudflare's Durable Objects. `program` compiles it,
//! `instance` evaluates it anew for every call in an engine of its own, with the environment of `prelude.js` and
//! `natives`; `host` holds what a call reads and changes; `pool` runs calls on threads of their own,
//! in the order of `turns`.

mod console;
mod host;
mod instance;
mod natives;
mod places;
mod pool;
mod program;
mod turns;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{error, info};

use self::pool::Pool;
use self::program::Program;
use super::method::{MethodCall, MethodError, MethodOutcome};
use crate::metrics::Metrics;

/// Limits of one call.
#[derive(Clone, Copy, Debug)]
pub struct ScriptLimits {
    /// Time of a call, and of the evaluation of the module.
    pub time: Duration,
    /// Bytes of the memory of a call, and of its changes.
    pub memory_bytes: usize,
}

/// The operator's script.
#[derive(Debug)]
pub struct Script {
    path: PathBuf,
    limits: ScriptLimits,
    pool: Pool,
    metrics: Arc<Metrics>,
}

/// Checks a script's file as [`Script::load`] does.
///
/// # Errors
/// The problem, without the path.
pub fn check(path: &Path, limits: &ScriptLimits) -> Result<(), String> {
    Program::compile(path, program::read(path)?, limits).map(drop)
}

impl Script {
    /// Loads a script and starts its threads.
    ///
    /// # Errors
    /// The problem, without the path.
    pub fn load(
        path: &Path,
        limits: ScriptLimits,
        threads: usize,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        let program = Program::compile(path, program::read(path)?, &limits)?;
        let pool = Pool::start(Arc::new(program), threads, limits)?;
        Ok(Self { path: path.to_owned(), limits, pool, metrics })
    }

    /// Calls a method.
    ///
    /// # Errors
    /// [`MethodError`]; nothing of the call is to be applied.
    pub async fn call(&self, call: MethodCall) -> Result<MethodOutcome, MethodError> {
        self.pool.call(call).await
    }

    /// Reads the file again and again, and uses it when it has changed. A broken file changes nothing but the log.
    pub async fn keep_fresh(&self, interval: Duration) {
        let mut broken = None;
        loop {
            sleep(interval).await;
            let (path, limits, old, known) =
                (self.path.clone(), self.limits, self.pool.program(), broken.clone());
            let read = move || match program::read(&path) {
                Ok(source) if *source == *old.source => Reading::Unchanged,
                source if known.as_ref() == Some(&source) => Reading::SameFault,
                Ok(source) => match Program::compile(&path, source.clone(), &limits) {
                    Ok(program) => Reading::Changed(program),
                    Err(problem) => Reading::Broken { of: Ok(source), problem },
                },
                Err(problem) => Reading::Broken { of: Err(problem.clone()), problem },
            };
            // The task of a read that panicked ends with nothing read.
            let read = tokio::task::spawn_blocking(read).await.unwrap_or(Reading::SameFault);
            match read {
                Reading::Unchanged => broken = None,
                Reading::SameFault => {}
                Reading::Changed(program) => {
                    broken = None;
                    self.pool.replace(Arc::new(program));
                    Metrics::count(&self.metrics.durable_script_reloads, "used");
                    info!(event = "scriptReloaded", path = %self.path.display());
                }
                Reading::Broken { of, problem } => {
                    broken = Some(of);
                    Metrics::count(&self.metrics.durable_script_reloads, "unusable");
                    let path = self.path.display();
                    error!(event = "scriptUnusable", %path, problem, "the script as loaded before stays in use");
                }
            }
        }
    }
}

/// The outcome of reading the file again.
enum Reading {
    /// The file is the script in use.
    Unchanged,
    /// The file is as broken as before.
    SameFault,
    /// Another script.
    Changed(Program),
    /// A file that cannot be used.
    Broken {
        /// The text of the file, or the reason for which it cannot be read.
        of: Result<Vec<u8>, String>,
        problem: String,
    },
}

#[cfg(test)]
mod tests;
