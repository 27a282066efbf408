//! A script as compiled, and its checks.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rquickjs::loader::bundle::Bundle;
use rquickjs::loader::{ImportAttributes, Resolver};
use rquickjs::{Context, Ctx, Error, Exception, Module, Runtime, WriteOptions};

use super::ScriptLimits;
use super::instance::{Instance, MAX_STACK_BYTES};

/// Maximum bytes of a script's file.
pub(super) const MAX_SOURCE_BYTES: u64 = 1 << 20;

/// The module with the environment of a script.
pub(super) const PRELUDE: &str = "satsuma:prelude";

/// The name by which scripts import the base class of objects.
const WORKERS: &str = "cloudflare:workers";

/// Compiled modules by name, in the form that the engine's loader takes.
pub(super) type Modules = &'static [(&'static str, &'static [u8])];

/// A compiled script.
///
/// The engine trusts what it is given as compiled, so that is only ever the output of the same engine in the same
/// process, never something stored. Its loader takes it for ever: each change of the file costs its compiled size
/// until the server ends.
#[derive(Debug)]
pub(super) struct Program {
    /// The script's own module.
    pub(super) name: &'static str,
    pub(super) modules: Modules,
    /// The text that was compiled.
    pub(super) source: Arc<[u8]>,
}

/// Reads a script's file.
///
/// # Errors
/// The problem, without the path.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut source = Vec::new();
    file.take(MAX_SOURCE_BYTES + 1)
        .read_to_end(&mut source)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if source.len() as u64 > MAX_SOURCE_BYTES {
        return Err(format!("has more than {MAX_SOURCE_BYTES} bytes"));
    }
    Ok(source)
}

impl Program {
    /// Compiles a script, evaluates its module once and finds its class.
    ///
    /// # Errors
    /// The problem, with the line of the script where there is one.
    pub(super) fn compile(path: &Path, source: Vec<u8>, limits: &ScriptLimits) -> Result<Self, String> {
        let text = str::from_utf8(&source).map_err(|_| "is not UTF-8".to_owned())?;
        if text.contains('\0') {
            return Err("contains a zero byte".to_owned());
        }
        // A name cannot be mistaken for that of another module, which has a colon.
        let name = path.file_name().unwrap_or_default().to_string_lossy().replace([':', '\0'], "_");
        let prelude = prelude()?;
        let name: &'static str = Box::leak(name.into_boxed_str());
        let compiled = compile(name, text, Box::leak(Box::new([(PRELUDE, prelude)])))?;
        let compiled: &'static [u8] = Box::leak(compiled.into_boxed_slice());
        let modules = Box::new([(PRELUDE, prelude), (name, compiled)]);
        let program = Self { name, modules: Box::leak(modules), source: source.into() };
        Instance::prepare(&program, limits, None)?;
        Ok(program)
    }
}

/// The compiled environment of scripts, the same for all.
fn prelude() -> Result<&'static [u8], String> {
    static PRELUDE_CODE: OnceLock<Result<&'static [u8], String>> = OnceLock::new();
    let code = PRELUDE_CODE.get_or_init(|| {
        let code = compile(PRELUDE, include_str!("prelude.js"), &[])?;
        Ok(Box::leak(code.into_boxed_slice()))
    });
    code.clone()
}

fn compile(name: &'static str, source: &str, imports: Modules) -> Result<Vec<u8>, String> {
    let engine = |error: Error| error.to_string();
    let runtime = Runtime::new().map_err(engine)?;
    runtime.set_max_stack_size(MAX_STACK_BYTES);
    runtime.set_loader(OnlyScript(name), Bundle(imports));
    let context = Context::full(&runtime).map_err(engine)?;
    context.with(|ctx| {
        let module = Module::declare(ctx.clone(), name, source).map_err(|error| problem(&ctx, error))?;
        module.write(WriteOptions::default()).map_err(|error| problem(&ctx, error))
    })
}

/// Returns the text of an exception, with the first line of its stack.
pub(super) fn problem(ctx: &Ctx<'_>, error: Error) -> String {
    if !error.is_exception() {
        return error.to_string();
    }
    let thrown = ctx.catch();
    let Some(exception) = thrown.as_object().cloned().and_then(Exception::from_object) else {
        return "threw a value that is no error".to_owned();
    };
    let message = exception.message().unwrap_or_default();
    let stack = exception.stack().unwrap_or_default();
    match stack.lines().map(str::trim).find(|line| line.starts_with("at ")) {
        Some(place) => format!("{message}, {place}"),
        None => message,
    }
}

/// Returns the loader of compiled modules.
pub(super) fn loader(program: &Program) -> Bundle<Modules> {
    Bundle(program.modules)
}

/// The names of modules: a script has only its own file and the base class.
pub(super) struct OnlyScript(pub(super) &'static str);

impl Resolver for OnlyScript {
    fn resolve<'js>(
        &mut self,
        _ctx: &Ctx<'js>,
        base: &str,
        name: &str,
        _attributes: Option<ImportAttributes<'js>>,
    ) -> rquickjs::Result<String> {
        // The server imports from outside of any module.
        let is_server = base.is_empty();
        match name {
            PRELUDE if is_server => Ok(PRELUDE.to_owned()),
            _ if is_server && name == self.0 => Ok(name.to_owned()),
            WORKERS if !is_server => Ok(PRELUDE.to_owned()),
            _ => Err(Error::new_resolving_message(base, name, "a script has no other modules")),
        }
    }
}
