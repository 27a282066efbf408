//! Methods of scripts: right answers.

mod hostile;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use self::hostile::SHORT;
use super::ScriptLimits;
use super::instance::Instance;
use super::program::Program;
use crate::durable::method::{
    AlarmChange, Change, MethodCall, MethodError, MethodOutcome, ObjectState, Payer, Target,
};
use crate::id::ObjectId;

const LIMITS: ScriptLimits = ScriptLimits { time: Duration::from_secs(20), memory_bytes: 16 << 20 };

fn program(source: &str) -> Program {
    Program::compile(Path::new("/somewhere/objects.mjs"), source.as_bytes().to_vec(), &LIMITS).unwrap()
}

fn compile(source: &str) -> Result<Program, String> {
    Program::compile(Path::new("objects.mjs"), source.as_bytes().to_vec(), &LIMITS)
}

/// A class with these members.
fn class(members: &str) -> Program {
    program(&format!(
        "export class DurableObject {{ constructor(state) {{ this.storage = state.storage; }} {members} }}"
    ))
}

fn call(method: &str, params: Value, state: Value) -> MethodCall {
    let state = state.as_object().unwrap().iter();
    let state = state.map(|(key, value)| (key.as_str().into(), raw(value).into()));
    MethodCall {
        object: ObjectId::parse("room:1").unwrap(),
        target: Target::Method(method.to_owned()),
        payer: Payer::Alarms,
        params: raw(&params),
        state: Arc::new(state.collect::<ObjectState>()),
        alarm: None,
        version: 0,
        at: 0,
    }
}

fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).unwrap()
}

fn run(program: &Program, call: &MethodCall) -> Result<MethodOutcome, MethodError> {
    Instance::prepare(program, &LIMITS, None).unwrap().call(call)
}

/// The result of a method, with its parameters, on an object without values.
fn result(program: &Program, method: &str, params: Value) -> Result<Value, MethodError> {
    run(program, &call(method, params, json!({}))).map(|outcome| value(&outcome.result))
}

fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap()
}

/// The result of a body of a method, called with no parameters.
fn body(source: &str) -> Result<Value, MethodError> {
    result(&class(&format!("async method_m(data) {{ {source} }}")), "m", json!({}))
}

/// The changes by key; `null` is a deletion, a value is in a list.
fn changes(outcome: &MethodOutcome) -> Value {
    let changes = outcome.changes.iter().map(|change| match change {
        Change::Put { key, value: raw } => (key.to_string(), json!([value(raw)])),
        Change::Delete { key } => (key.to_string(), Value::Null),
    });
    Value::Object(changes.collect())
}

fn updates(outcome: &MethodOutcome) -> Vec<(String, Value)> {
    outcome.updates.iter().map(|update| (update.key.to_string(), value(&update.value))).collect()
}

/// A module of the shape of the one that comes with the `cloudflare_durable` library.
const WORKER: &str = r#"
export class DurableObject {
  constructor(state, env) {
    this.state = state;
    this.env = env;
    this.storage = state.storage;
    this.sessions = new Map();
  }

  async fetch(request) {
    return new Response(await request.text());
  }

  broadcastUpdate(key, value) {
    for (const client of this.sessions.values()) client.send(JSON.stringify({ type: "update", key, value }));
  }

  async method_echo(data) {
    console.log(`echo: ${JSON.stringify(data)}`);
    return data;
  }

  async method_increment(data) {
    const increment = data.increment || 1;
    let value = await this.storage.get("value") || 0;
    value = Number(value) + increment;
    await this.storage.put("value", value);
    return { value };
  }

  async method_update(data) {
    if (!data.content) {
      throw new Error("Content is required");
    }
    let doc = await this.storage.get("document") || { content: "", version: 0, lastModified: "" };
    doc.content = data.content;
    doc.version = (doc.version || 0) + 1;
    doc.lastModified = new Date().toISOString();
    await this.storage.put("document", doc);
    this.broadcastUpdate("document", doc);
    return doc;
  }
}

export default {
  async fetch(request, env) {
    return env.DURABLE_OBJECT.get(env.DURABLE_OBJECT.idFromName("1")).fetch(request);
  }
};
"#;

fn check_worker(worker: &Program) {
    let echo = json!({ "a": [1, "ü", null], "__proto__": 1 });
    assert_eq!(result(worker, "echo", echo.clone()), Ok(echo));

    let first = run(worker, &call("increment", json!({ "increment": 2 }), json!({}))).unwrap();
    assert_eq!((value(&first.result), changes(&first)), (json!({ "value": 2 }), json!({ "value": [2] })));
    let second = run(worker, &call("method_increment", json!({}), json!({ "value": 2 }))).unwrap();
    assert_eq!((value(&second.result), changes(&second)), (json!({ "value": 3 }), json!({ "value": [3] })));
    assert!(second.updates.is_empty());

    let stored = json!({ "document": { "content": "old", "version": 6 }});
    let update = run(worker, &call("update", json!({ "content": "new" }), stored)).unwrap();
    let document = value(&update.result);
    assert_eq!((&document["content"], &document["version"]), (&json!("new"), &json!(7)));
    let modified = document["lastModified"].as_str().unwrap();
    assert!(modified.len() == 24 && modified.ends_with('Z'), "{modified}");
    assert_eq!(changes(&update), json!({ "document": [document] }));
    assert_eq!(updates(&update), [("document".to_owned(), document)]);

    let error = result(worker, "update", json!({}));
    assert_eq!(error, Err(MethodError::Failed("Content is required".to_owned())));
    for name in
        ["join", "constructor", "__proto__", "toString", "fetch", "broadcastUpdate", "", "method_", "echo "]
    {
        assert_eq!(result(worker, name, json!({})), Err(MethodError::NotFound), "{name}");
    }
}

#[test]
fn worker_of_the_library_gives_right_answers() {
    check_worker(&program(WORKER));
}

#[test]
fn storage_has_the_forms_of_cloudflares() {
    let source = r#"
        const s = this.storage, seen = [];
        seen.push(await s.get("a"), await s.get("none"), [...await s.get(["b", "none", "a", "b"])]);
        await s.put("c", { deep: [1] });
        await s.put({ d: null, e: "text" });
        const copy = await s.get("c");
        copy.deep.push(2);
        seen.push(await s.get("c"), await s.delete("a"), await s.delete("a"), await s.delete(["b", "x"]));
        seen.push([...(await s.list()).keys()]);
        for (const options of [{ prefix: "d" }, { start: "d" }, { startAfter: "d" }, { end: "d" }, { limit: 1, reverse: true },
                               { prefix: "d", startAfter: "a" }, { prefix: "e", start: "a" }, { start: "z" }]) {
          seen.push([...(await s.list(options)).keys()].join(""));
        }
        await s.sync();
        return seen;
    "#;
    let program = class(&format!("async method_m() {{ {source} }}"));
    let outcome = run(&program, &call("m", json!({}), json!({ "a": 1, "b": 2 }))).unwrap();
    assert_eq!(
        value(&outcome.result),
        json!([
            1, null, [["a", 1], ["b", 2]], { "deep": [1] }, true, false, 1, ["c", "d", "e"],
            "d", "de", "e", "c", "e", "d", "e", ""
        ])
    );
    assert_eq!(
        changes(&outcome),
        json!({ "a": null, "b": null, "c": [{ "deep": [1] }], "d": [null], "e": ["text"] })
    );
    let program = class(
        "async method_m() { await this.storage.put('c', 1); await this.storage.deleteAll(); return [...await this.storage.list()]; }",
    );
    let outcome = run(&program, &call("m", json!({}), json!({ "a": 1 }))).unwrap();
    assert_eq!((value(&outcome.result), changes(&outcome)), (json!([]), json!({ "a": null, "c": null })));
}

#[test]
fn result_is_what_json_makes_of_it() {
    for (expression, expected) in [
        ("undefined", json!(null)),
        ("() => 1", json!(null)),
        ("new Map([[1, 2]])", json!({})),
        ("{ toJSON() { return 'own'; } }", json!("own")),
        (
            "new Proxy({ a: 1 }, { get: (target, key) => key === 'toJSON' ? undefined : 7 })",
            json!({ "a": 7 }),
        ),
    ] {
        let result = body(&format!("return {expression};"));
        assert_eq!(result, Ok(expected), "{expression}");
    }
    // Half a character is an escape in JSON, which not every reader takes, but which loses nothing.
    let half = run(&class("method_m() { return '\\ud800'; }"), &call("m", json!({}), json!({}))).unwrap();
    assert_eq!(half.result.get(), r#""\ud800""#);
}

#[test]
fn broken_script_names_its_error_and_line() {
    for (source, problem) in [
        ("export class A {\n  method_a( {}\n}", "Unexpected token '}', at objects.mjs:3:1"),
        ("export class A {}\nnull.x;", "objects.mjs:2"),
        ("export const a = 1;", "exports no class DurableObject, and not one class only"),
        ("export class A {} export class B {}", "exports no class DurableObject, and not one class only"),
        ("export default { fetch() {} };", "exports no class DurableObject, and not one class only"),
        ("export class A {} await new Promise(() => {});", ""),
        ("export class A {} throw 1;", "threw a value that is no error"),
        ("export class A {} 'x'.repeat(1 << 28);", "out of memory"),
        ("export class A {}\0", "contains a zero byte"),
    ] {
        let error = compile(source).unwrap_err();
        assert!(error.contains(problem), "{source}: {error}");
    }
    assert_eq!(Program::compile(Path::new("a"), vec![0xff], &LIMITS).unwrap_err(), "is not UTF-8");
    let endless = b"export class A {} for (;;);".to_vec();
    let error = Program::compile(Path::new("a"), endless, &SHORT).unwrap_err();
    assert_eq!(error, "took more than 50ms to evaluate");
}

#[test]
fn class_is_found_by_name_default_or_alone() {
    for source in [
        "export class DurableObject { method_m() { return 1; } } export class Other {} export default class {}",
        "export default class { method_m() { return 1; } } export class Other {}",
        "export class Counter { method_m() { return 1; } } export default { fetch() {} }; export const help = () => 2;",
        "class Base { method_m() { return 1; } } export class Counter extends Base {}",
        "export class Counter { method_m = async () => 1; }",
        "import { DurableObject } from 'cloudflare:workers'; export class Counter extends DurableObject { async method_m() { return await this.ctx.storage.get('none') ?? 1; } }",
    ] {
        assert_eq!(result(&program(source), "m", json!({})), Ok(json!(1)), "{source}");
    }
}

#[test]
fn instance_has_its_environment() {
    let source = r#"
        this.broadcastUpdate("k", undefined);
        this.broadcastUpdate("__proto__", { a: 1 });
        return [this.sessions.size, this.sessions instanceof Map, this.state.id.toString(), Object.keys(this.env),
                crypto.randomUUID() !== crypto.randomUUID(), crypto.randomUUID().length, Math.abs(Date.now() - data.at) < 60000, ready];
    "#;
    let program = program(&format!(
        "let ready = false; export class A {{ constructor(state, env) {{ this.state = state; this.env = env;
         state.blockConcurrencyWhile(async () => {{ await null; ready = true; }}); }}
         broadcastUpdate() {{ throw new Error('its own'); }} async method_m(data) {{ {source} }} }}"
    ));
    let at =
        u64::try_from(crate::clock::wall_clock().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis())
            .unwrap();
    let outcome = run(&program, &call("m", json!({ "at": at }), json!({}))).unwrap();
    assert_eq!(value(&outcome.result), json!([0, true, "room:1", [], true, 36, true, true]));
    assert_eq!(
        updates(&outcome),
        [("k".to_owned(), json!(null)), ("__proto__".to_owned(), json!({ "a": 1 }))]
    );
}

#[test]
fn names_of_every_object_are_plain_keys() {
    let source = r#"
        const s = this.storage;
        for (const key of ["__proto__", "constructor", "toString"]) {
          if (await s.get(key) !== undefined) throw new Error(key);
          await s.put(key, data.__proto__ === 1 ? "own" : "inherited");
        }
        return [...await s.list()];
    "#;
    let program = class(&format!("async method_m(data) {{ {source} }}"));
    let mut call = call("m", json!({}), json!({}));
    call.params = RawValue::from_string(r#"{"__proto__":1}"#.to_owned()).unwrap();
    let outcome = run(&program, &call).unwrap();
    let keys = ["__proto__", "constructor", "toString"].map(|key| json!([key, "own"]));
    assert_eq!(value(&outcome.result), json!(keys));
    assert_eq!(outcome.changes.len(), 3);
}

#[test]
fn alarm_is_set_read_and_called() {
    let program = class(
        "async method_m(data) { const s = this.storage; const before = await s.getAlarm(); await s.setAlarm(data.at);
         const set = await s.getAlarm(); if (data.clear) await s.deleteAlarm(); return [before, set, await s.getAlarm()]; }
         async alarm() { await this.storage.put('rang', arguments.length); await this.storage.setAlarm(new Date(5)); }",
    );
    let mut first = call("m", json!({ "at": 1.7e12 }), json!({}));
    first.alarm = Some(9);
    let outcome = run(&program, &first).unwrap();
    assert_eq!(value(&outcome.result), json!([9, 1.7e12 as u64, 1.7e12 as u64]));
    assert_eq!(outcome.alarm, Some(AlarmChange::Set(1_700_000_000_000)));
    let outcome = run(&program, &call("m", json!({ "at": 1, "clear": true }), json!({}))).unwrap();
    assert_eq!((value(&outcome.result), outcome.alarm), (json!([null, 1, null]), Some(AlarmChange::Clear)));

    let ring = MethodCall { target: Target::Alarm, ..call("m", json!({}), json!({})) };
    let outcome = run(&program, &ring).unwrap();
    assert_eq!((changes(&outcome), outcome.alarm), (json!({ "rang": [0] }), Some(AlarmChange::Set(5))));
    assert_eq!(result(&program, "alarm", json!({})), Err(MethodError::NotFound), "no caller can name it");
    assert_eq!(run(&class(""), &ring).map(|_| ()), Err(MethodError::NotFound));
}
