//! The functions of the server that the environment of a script calls.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use rquickjs::function::IntoJsFunc;
use rquickjs::{Ctx, Exception, Function, Object};
use uuid::Uuid;

use super::console::{Console, Level};
use super::host::{CallData, Refused, Selection};
use crate::durable::method::AlarmChange;

/// Returns the object with all functions.
pub(super) fn natives<'js>(
    ctx: &Ctx<'js>,
    data: &Rc<RefCell<CallData>>,
    console: Option<&Arc<Console>>,
) -> rquickjs::Result<Object<'js>> {
    let natives = Object::new(ctx.clone())?;
    storage(ctx, &natives, data)?;
    alarm(ctx, &natives, data)?;

    let lines = data.clone();
    set(ctx, &natives, "update", move |ctx: Ctx<'js>, key: String, json: String| {
        thrown(&ctx, lines.borrow_mut().update(&key, json))
    })?;
    let enabled = console.cloned();
    set(ctx, &natives, "logs", move |level: String| {
        enabled.as_ref().is_some_and(|_| Level::parse(&level).is_enabled())
    })?;
    let (lines, console) = (data.clone(), console.cloned());
    set(ctx, &natives, "log", move |level: String, text: rquickjs::String<'js>| {
        let mut data = lines.borrow_mut();
        if let Some(console) = &console
            && data.take_line()
        {
            // A text with half a character has no place in a log.
            let text = text.to_string().unwrap_or_else(|_| "[text that is not Unicode]".to_owned());
            console.log(&data.object, Level::parse(&level), &text);
        }
    })?;
    set(ctx, &natives, "randomUUID", || Uuid::new_v4().to_string())?;
    Ok(natives)
}

fn storage<'js>(ctx: &Ctx<'js>, natives: &Object<'js>, data: &Rc<RefCell<CallData>>) -> rquickjs::Result<()> {
    let values = data.clone();
    set(ctx, natives, "get", move |key: String| {
        values.borrow().get(&key).map(|value| value.get().to_owned())
    })?;
    let values = data.clone();
    set(ctx, natives, "getAll", move |mut keys: Vec<String>| {
        keys.sort_unstable();
        keys.dedup();
        let values = values.borrow();
        let found = keys.into_iter().filter_map(|key| {
            let value = values.get(&key)?.get().to_owned();
            Some([key, value])
        });
        found.flatten().collect::<Vec<_>>()
    })?;
    let values = data.clone();
    set(ctx, natives, "put", move |ctx: Ctx<'js>, key: String, json: String| {
        thrown(&ctx, values.borrow_mut().put(&key, json))
    })?;
    let values = data.clone();
    set(ctx, natives, "delete", move |ctx: Ctx<'js>, key: String| {
        thrown(&ctx, values.borrow_mut().delete(&key))
    })?;
    let values = data.clone();
    set(ctx, natives, "deleteAll", move |ctx: Ctx<'js>| thrown(&ctx, values.borrow_mut().delete_all()))?;
    let values = data.clone();
    set(ctx, natives, "list", move |options: Object<'js>| {
        let selection = Selection {
            prefix: options.get("prefix")?,
            start: options.get("start")?,
            start_after: options.get("startAfter")?,
            end: options.get("end")?,
            reverse: options.get("reverse")?,
            limit: options.get::<_, Option<f64>>("limit")?.map(|limit| limit as usize),
        };
        let values = values.borrow();
        let listed = values.list(&selection);
        let flat = listed.into_iter().flat_map(|(key, value)| [key.to_string(), value.get().to_owned()]);
        rquickjs::Result::Ok(flat.collect::<Vec<_>>())
    })
}

fn alarm<'js>(ctx: &Ctx<'js>, natives: &Object<'js>, data: &Rc<RefCell<CallData>>) -> rquickjs::Result<()> {
    // A number of JavaScript holds every time that the environment lets pass.
    let values = data.clone();
    set(ctx, natives, "setAlarm", move |at: f64| {
        values.borrow_mut().change_alarm(AlarmChange::Set(at as u64));
    })?;
    let values = data.clone();
    set(ctx, natives, "getAlarm", move || values.borrow().alarm().map(|at| at as f64))?;
    let values = data.clone();
    set(ctx, natives, "deleteAlarm", move || values.borrow_mut().change_alarm(AlarmChange::Clear))
}

fn set<'js, P, F: IntoJsFunc<'js, P> + 'js>(
    ctx: &Ctx<'js>,
    natives: &Object<'js>,
    name: &str,
    function: F,
) -> rquickjs::Result<()> {
    natives.set(name, Function::new(ctx.clone(), function)?)
}

/// Throws a refusal as an exception, which the script may catch.
fn thrown<T>(ctx: &Ctx<'_>, result: Result<T, Refused>) -> rquickjs::Result<T> {
    result.map_err(|Refused(problem)| Exception::throw_range(ctx, &problem))
}
