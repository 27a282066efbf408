//! One evaluation of a script in an engine of its own, good for one call.
//!
//! Nothing outlives a call: not the script's variables, not what it did to built-in objects, not its promises, not its
//! memory. The engine, the environment and the evaluated module are made before a call comes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rquickjs::function::Args;
use rquickjs::{
    Context, Ctx, Error, Exception, Function, Module, Object, Persistent, Promise, Runtime, Value,
};
use tokio::time::Instant;

use super::ScriptLimits;
use super::console::Console;
use super::host::CallData;
use super::natives::natives;
use super::program::{OnlyScript, PRELUDE, Program, loader, problem};
use crate::clock::now;
use crate::durable::method::{MethodCall, MethodError, MethodOutcome, Target};

/// Maximum stack of a script; the thread has more, for what the engine does without a check.
pub(super) const MAX_STACK_BYTES: usize = 512 << 10;

/// Maximum bytes of an error's message.
const MAX_MESSAGE_BYTES: usize = 1024;

/// The name of the handler of an object's alarm.
const ALARM: &str = "alarm";

/// A script that is ready for one call.
pub(super) struct Instance {
    // Fields are dropped in this order: values before their context, the context before its runtime.
    run: Persistent<Function<'static>>,
    describe: Persistent<Function<'static>>,
    class: Persistent<Value<'static>>,
    context: Context,
    clock: Rc<Deadline>,
    data: Rc<RefCell<CallData>>,
    console: Option<Arc<Console>>,
    pub(super) limits: ScriptLimits,
}

/// The end of the time of a call, or of a script's evaluation.
struct Deadline {
    at: Cell<Instant>,
    is_over: Cell<bool>,
}

impl Deadline {
    fn begin(&self, time: Duration) {
        self.at.set(now() + time);
        self.is_over.set(false);
    }

    fn check(&self) -> bool {
        if now() >= self.at.get() {
            self.is_over.set(true);
        }
        self.is_over.get()
    }
}

impl Instance {
    /// Evaluates a script.
    ///
    /// # Errors
    /// The problem as text.
    pub(super) fn prepare(
        program: &Program,
        limits: &ScriptLimits,
        console: Option<Arc<Console>>,
    ) -> Result<Self, String> {
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        runtime.set_memory_limit(limits.memory_bytes);
        runtime.set_max_stack_size(MAX_STACK_BYTES);
        runtime.set_loader(OnlyScript(program.name), loader(program));
        let clock = Rc::new(Deadline { at: Cell::new(now()), is_over: Cell::new(false) });
        clock.begin(limits.time);
        let interrupt = clock.clone();
        runtime.set_interrupt_handler(Some(Box::new(move || interrupt.check())));
        let context = Context::full(&runtime).map_err(|error| error.to_string())?;
        let data = Rc::new(RefCell::new(CallData::new(limits.memory_bytes)));
        let prepared = context.with(|ctx| {
            let result = evaluate(&ctx, program, &data, console.as_ref());
            result.map_err(|error| match clock.is_over.get() {
                true => format!("took more than {} to evaluate", humantime::format_duration(limits.time)),
                false => problem(&ctx, error),
            })
        });
        let (run, describe, class) = prepared?;
        Ok(Self { run, describe, class, context, clock, data, console, limits: *limits })
    }

    /// Makes the one call that an instance is good for.
    pub(super) fn call(&self, call: &MethodCall) -> Result<MethodOutcome, MethodError> {
        self.clock.begin(self.limits.time);
        self.data.borrow_mut().begin(call);
        let result = self.context.with(|ctx| match self.result(&ctx, call) {
            Ok(result) => Ok(result),
            Err(error) => Err(self.failure(&ctx, error)),
        });
        match result? {
            Some(result) => self.data.borrow_mut().finish(result),
            None => Err(MethodError::NotFound),
        }
    }

    /// Returns the JSON of a method's result; `None` if the class has no such method.
    fn result(&self, ctx: &Ctx<'_>, call: &MethodCall) -> Result<Option<String>, CallFailure> {
        let names = match &call.target {
            // A class may have a method whose own name begins with the prefix.
            Target::Method(name) => {
                let names = [format!("{}{name}", Target::PREFIX), name.clone()];
                names.into_iter().filter(|name| name.starts_with(Target::PREFIX)).collect()
            }
            Target::Alarm => vec![ALARM.to_owned()],
        };
        let run = self.run.clone().restore(ctx)?;
        let mut args = Args::new(ctx.clone(), 4);
        args.push_arg(self.class.clone().restore(ctx)?)?;
        args.push_arg(call.object.as_str())?;
        args.push_arg(names)?;
        if matches!(call.target, Target::Method(_)) {
            args.push_arg(call.params.get())?;
        }
        let promise: Promise<'_> = run.call_arg(args)?;
        self.settle(ctx);
        if self.clock.is_over.get() {
            return Err(CallFailure::Engine(Error::Exception));
        }
        match promise.result::<Option<rquickjs::String<'_>>>() {
            Some(result) => Ok(result?.map(|text| text.to_string()).transpose()?),
            None => Err(CallFailure::Unsettled),
        }
    }

    /// Runs all jobs: what a method started without waiting for it is a part of the call.
    fn settle(&self, ctx: &Ctx<'_>) {
        while !self.clock.check() && ctx.execute_pending_job() {}
    }

    /// Returns the error of a failed call.
    fn failure(&self, ctx: &Ctx<'_>, failure: CallFailure) -> MethodError {
        if self.clock.is_over.get() {
            let time = humantime::format_duration(self.limits.time);
            return MethodError::Limit(format!("the method took more than {time}"));
        }
        let error = match failure {
            CallFailure::Unsettled => {
                return MethodError::Failed("the method waits for a promise that nothing settles".to_owned());
            }
            CallFailure::Engine(error) => error,
        };
        if !error.is_exception() {
            return MethodError::Failed(limited(&error.to_string()));
        }
        let thrown = ctx.catch();
        let memory = format!("the method used more than {} bytes of memory", self.limits.memory_bytes);
        if thrown.is_null() {
            // The engine's own exception when there is no memory even for an error.
            return MethodError::Limit(format!("{memory}, or threw null"));
        }
        let describe = self.describe.clone().restore(ctx);
        let described = describe.and_then(|describe| describe.call::<_, Vec<String>>((thrown.clone(),)));
        // The getters and `toString` behind a message may throw as well, or not end.
        let Ok([message, stack]) = <[String; 2]>::try_from(described.unwrap_or_default()) else {
            ctx.catch();
            return match self.clock.is_over.get() {
                true => self.failure(ctx, CallFailure::Unsettled),
                false => MethodError::Failed("the method threw a value that cannot be shown".to_owned()),
            };
        };
        if thrown.is_error() && message == "out of memory" {
            return MethodError::Limit(memory);
        }
        if let Some(console) = &self.console {
            console.failed(&self.data.borrow().object, &stack);
        }
        MethodError::Failed(limited(&message))
    }
}

/// A call that has no result.
enum CallFailure {
    /// The engine's error; an exception is still in the context.
    Engine(Error),
    /// A promise that nothing settles.
    Unsettled,
}

impl From<Error> for CallFailure {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

fn limited(message: &str) -> String {
    message[..message.floor_char_boundary(MAX_MESSAGE_BYTES)].to_owned()
}

/// The functions and the class of an evaluated script.
type Evaluated = (Persistent<Function<'static>>, Persistent<Function<'static>>, Persistent<Value<'static>>);

fn evaluate(
    ctx: &Ctx<'_>,
    program: &Program,
    data: &Rc<RefCell<CallData>>,
    console: Option<&Arc<Console>>,
) -> rquickjs::Result<Evaluated> {
    let prelude: Object<'_> = Module::import(ctx, PRELUDE)?.finish()?;
    let install: Function<'_> = prelude.get("install")?;
    let run: Function<'_> = install.call((natives(ctx, data, console)?,))?;
    let exported: Object<'_> = Module::import(ctx, program.name)?.finish()?;
    let class: Value<'_> = prelude.get::<_, Function<'_>>("find")?.call((exported,))?;
    if !class.is_function() {
        let problem = "exports no class DurableObject, and not one class only";
        return Err(Exception::throw_type(ctx, problem));
    }
    let describe: Function<'_> = prelude.get("describe")?;
    Ok((Persistent::save(ctx, run), Persistent::save(ctx, describe), Persistent::save(ctx, class)))
}
