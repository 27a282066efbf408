//! Scripts that do what they should not.

use std::time::Duration;

use serde_json::{Value, json};

use super::{LIMITS, body, call, class, compile, program, result, value};
use crate::durable::method::MethodError;
use crate::durable::script::ScriptLimits;
use crate::durable::script::instance::Instance;
use crate::durable::script::program::Program;

/// Limits for what does not end by itself.
pub(super) const SHORT: ScriptLimits = ScriptLimits { time: Duration::from_millis(50), ..LIMITS };

#[test]
fn values_that_are_no_json_are_refused() {
    for (expression, problem) in [
        ("new Map([[1, 2]])", "a Map cannot be stored; values are JSON"),
        ("{ deep: [new Set()] }", "a Set cannot be stored; values are JSON"),
        ("new Uint8Array(2)", "a typed array cannot be stored; values are JSON"),
        ("() => 1", "a function cannot be stored; values are JSON"),
        ("{ f() {} }", "a function cannot be stored; values are JSON"),
        ("Symbol()", "a symbol cannot be stored; values are JSON"),
        ("undefined", "undefined cannot be stored; values are JSON"),
        ("/a/", "a RegExp cannot be stored; values are JSON"),
        ("Promise.resolve(1)", "a Promise cannot be stored; values are JSON"),
    ] {
        let failed = body(&format!("await this.storage.put('k', {expression});"));
        assert_eq!(failed, Err(MethodError::Failed(problem.to_owned())), "{expression}");
    }
    for expression in ["10n", "(() => { const a = []; a.push(a); return a; })()"] {
        let failed = body(&format!("await this.storage.put('k', {expression});"));
        assert!(matches!(failed, Err(MethodError::Failed(_))), "{expression}: {failed:?}");
    }
    let stored = "await this.storage.put('k', { at: new Date(0), not: NaN, gone: undefined }); return this.storage.get('k');";
    assert_eq!(body(stored), Ok(json!({ "at": "1970-01-01T00:00:00.000Z", "not": null })));
}

#[test]
fn exception_leaves_nothing_and_tells_its_message() {
    let put = "await this.storage.put('k', 1); this.broadcastUpdate('k', 1); await this.storage.setAlarm(1);";
    for (thrown, message) in [
        ("new Error('no luck')", "no luck"),
        ("new (class Own extends Error { name = 'Own' })('mine')", "mine"),
        ("'a text'", "a text"),
        ("{ message: 'like one' }", "like one"),
        ("undefined", "the method threw a value that is no error"),
        ("Symbol('x')", "the method threw a value that is no error"),
        ("{ get message() { throw 1 } }", "the method threw a value that cannot be shown"),
        (
            "new Proxy({}, { get() { throw new Error('x') } })",
            "the method threw a value that cannot be shown",
        ),
        ("new Error('x'.repeat(5000))", &"x".repeat(1024)),
        ("new Error('ü'.repeat(5000))", &"ü".repeat(512)),
    ] {
        let failed = body(&format!("{put} throw {thrown};"));
        assert_eq!(failed, Err(MethodError::Failed(message.to_owned())), "{thrown}");
    }
    let failed = result(&class("method_m() { throw new Error('at once'); }"), "m", json!({}));
    assert_eq!(failed, Err(MethodError::Failed("at once".to_owned())));
    let failed =
        result(&program("export class A { constructor() { null.x; } method_m() {} }"), "m", json!({}));
    assert!(matches!(&failed, Err(MethodError::Failed(message)) if message.contains("null")), "{failed:?}");
}

#[test]
fn loop_of_any_kind_ends_at_its_time() {
    let took = Err(MethodError::Limit("the method took more than 50ms".to_owned()));
    for source in [
        "for (;;);",
        "try { for (;;); } finally { for (;;); }",
        "for (;;) { try { for (;;); } catch {} }",
        "const f = async () => { for (;;) await null; }; await f();",
        "const f = async () => { for (;;) await null; }; f(); return 1;",
        "const f = () => { Promise.resolve().then(f); }; f(); await new Promise(() => {});",
        "return { toJSON() { for (;;); } };",
        "return { get a() { for (;;); } };",
        "return new Proxy({}, { ownKeys() { for (;;); } });",
        "throw { get message() { for (;;); } };",
        "throw new Proxy({}, { get() { for (;;); } });",
        "/^(a+)+$/.exec('a'.repeat(60) + 'b');",
        "/(x+x+)+y/.test('x'.repeat(60));",
        "'a'.repeat(60).replace(/(a*)*b/, '');",
        "await { then() { for (;;); } };",
        "[1, 2, 3].sort(() => { for (;;); });",
        "const it = { [Symbol.iterator]() { return { next: () => ({ done: false, value: 1 }) } } }; for (const x of it);",
        "eval('for (;;);');",
        "new Function('for (;;);')();",
        "(function* () { for (;;) yield 1; })().forEach(() => {});",
        "await this.storage.put('k', { toJSON() { for (;;); } });",
        "this.broadcastUpdate('k', { get a() { for (;;); } });",
        "console.log({ toJSON() { for (;;); } }); for (;;);",
    ] {
        let program = class(&format!("async method_m() {{ {source} }}"));
        assert_eq!(in_time(&program), took, "{source}");
    }
    for members in ["constructor() { for (;;); } method_m() {}", "get method_m() { for (;;); }"] {
        assert_eq!(in_time(&program(&format!("export class A {{ {members} }}"))), took, "{members}");
    }
}

/// The result of the method `m` within [`SHORT`].
fn in_time(program: &Program) -> Result<Value, MethodError> {
    let mut instance = Instance::prepare(program, &LIMITS, None).unwrap();
    instance.limits = SHORT;
    instance.call(&call("m", json!({}), json!({}))).map(|outcome| value(&outcome.result))
}

#[test]
fn memory_is_limited() {
    let used = "the method used more than 16777216 bytes of memory";
    for source in [
        "const all = []; for (;;) all.push(new Array(10000).fill(1));",
        "const all = []; for (let i = 0; ; i++) all.push(`${i}`.repeat(1000));",
        "new ArrayBuffer(1 << 28);",
        "'x'.repeat(1 << 28);",
        "const m = new Map(); for (let i = 0; ; i++) m.set(i, { i });",
        "new Array(1 << 28).fill(0);",
    ] {
        let failed = body(source);
        assert!(
            matches!(&failed, Err(MethodError::Limit(text)) if text.starts_with(used)),
            "{source}: {failed:?}"
        );
    }
    assert_eq!(body("throw null;"), Err(MethodError::Limit(format!("{used}, or threw null"))));
    let caught = "try { 'x'.repeat(1 << 28); } catch {} return 'goes on';";
    assert_eq!(body(caught), Ok(json!("goes on")));
}

#[test]
fn recursion_and_nesting_are_limited() {
    for source in [
        "const f = () => f() + 1; return f();",
        "const f = () => [1].map(f); return f();",
        "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return a;",
        "return JSON.parse('['.repeat(2e5) + ']'.repeat(2e5));",
        "return eval('('.repeat(1e5) + ')'.repeat(1e5));",
        "return new RegExp('('.repeat(1e5) + ')'.repeat(1e5)).test('a');",
        "const o = {}; o.toString = () => `${o}`; return `${o}`;",
        "const p = new Proxy({}, { get: (t, k, r) => r[k] }); return p.x;",
        "let a = []; for (let i = 0; i < 129; i++) a = [a]; return a;",
        "let a = []; for (let i = 0; i < 129; i++) a = [a]; await this.storage.put('k', a);",
        "let a = []; for (let i = 0; i < 129; i++) a = [a]; this.broadcastUpdate('k', a);",
    ] {
        let failed = body(source);
        assert!(matches!(failed, Err(MethodError::Failed(_))), "{source}: {failed:?}");
    }
    assert!(body("let a = []; for (let i = 0; i < 120; i++) a = [a]; return a;").is_ok());
    // A chain of a million objects is freed without a stack.
    assert_eq!(body("let a = null; for (let i = 0; i < 1e5; i++) a = { a }; return 1;"), Ok(json!(1)));
}

#[test]
fn changes_of_a_call_are_limited() {
    for (source, problem) in [
        ("for (let i = 0; i < 20001; i++) await s.put('k', i);", "a call makes at most 20000 changes"),
        (
            "for (let i = 0; i < 20001; i++) this.broadcastUpdate('k', i);",
            "a call makes at most 20000 changes",
        ),
        (
            "for (let i = 0; i < 20; i++) await s.put('k', 'x'.repeat(1 << 20));",
            "the changes of a call have at most 16777216 bytes",
        ),
        ("await s.put('', 1);", "a key has 1 to 2048 bytes"),
        ("await s.put('ü'.repeat(1025), 1);", "a key has 1 to 2048 bytes"),
        ("this.broadcastUpdate('', 1);", "a key has 1 to 2048 bytes"),
        ("await s.list({ limit: 0 });", "a limit is a number from 1"),
        ("await s.list({ start: 'a', startAfter: 'a' });", "list takes start or startAfter, not both"),
        ("await s.setAlarm('soon');", "an alarm's time is a Date, or milliseconds since 1970"),
    ] {
        let failed = body(&format!("const s = this.storage; {source}"));
        assert_eq!(failed, Err(MethodError::Failed(problem.to_owned())), "{source}");
    }
    let failed = body("await this.storage.put('\\ud800', 1);");
    assert!(matches!(failed, Err(MethodError::Failed(_))), "{failed:?}");
    let failed = body("await this.storage.put(Symbol(), 1);");
    assert!(matches!(failed, Err(MethodError::Failed(_))), "{failed:?}");
}

#[test]
fn promise_that_nothing_settles_is_an_error() {
    let stuck = Err(MethodError::Failed("the method waits for a promise that nothing settles".to_owned()));
    for source in ["await new Promise(() => {});", "await { then() {} };", "return new Promise(() => {});"] {
        assert_eq!(body(source), stuck, "{source}");
    }
}

#[test]
fn nothing_of_a_call_reaches_the_next() {
    let program = program(
        r#"
        let calls = 0;
        globalThis.calls = 0;
        export class DurableObject {
          async method_poison() {
            calls++;
            globalThis.calls++;
            DurableObject.calls = 1;
            Object.prototype.toJSON = () => "poisoned";
            Array.prototype.map = String.prototype.startsWith = Map.prototype.set = () => "poisoned";
            Object.prototype.method_join = () => "poisoned";
            Promise.prototype.then = () => {};
            JSON.parse = JSON.stringify = Reflect.apply = () => "poisoned";
            DurableObject.prototype.method_count = () => "poisoned";
            Symbol.for("left behind").description;
            globalThis.Map = globalThis.Object = undefined;
            queueMicrotask(() => { throw 1; });
          }
          method_count() {
            return [++calls, ++globalThis.calls, DurableObject.calls ?? 0, ({}).toString(), [1].map((x) => x)];
          }
        }"#,
    );
    for _ in 0..3 {
        let expected = json!([1, 1, 0, "[object Object]", [1]]);
        assert_eq!(result(&program, "count", json!({})), Ok(expected));
        // Its promise has lost its method, so that nothing comes of the call.
        drop(result(&program, "poison", json!({})));
        assert_eq!(result(&program, "join", json!({})), Err(MethodError::NotFound));
    }
}

#[test]
fn poison_of_a_call_gets_no_further_than_its_values() {
    // The script replaced what makes its texts: they are checked outside.
    let poisoned = "Promise.prototype.then = undefined; Object.prototype.toJSON = () => 7; await this.storage.put('k', {}); return {};";
    assert_eq!(body(poisoned), Ok(json!(7)));
    assert_eq!(body("JSON.stringify = () => 'no json'; return { a: 1 };"), Ok(json!({ "a": 1 })));
    assert_eq!(
        body("Map.prototype.set = null; try { await this.storage.list(); } catch {} return 1;"),
        Ok(json!(1))
    );
}

#[test]
fn script_has_no_way_out() {
    let source = r#"
        const names = ["fetch", "setTimeout", "setInterval", "process", "require", "std", "os", "Deno", "WebSocket",
                       "XMLHttpRequest", "load", "print", "scriptArgs", "Worker", "WebAssembly", "native"];
        const found = names.filter((name) => name in globalThis);
        for (const name of ["std", "os", "fs", "./other.js", "satsuma:prelude", "objects.mjs", "/etc/passwd"]) {
          try { await import(name); found.push(`module ${name}`); } catch {}
        }
        try { Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); found.push("wait"); } catch {}
        return found;
    "#;
    assert_eq!(body(source), Ok(json!([])));
    for (source, problem) in [
        ("import * as std from 'std'; export class A {}", "a script has no other modules"),
        ("export * from './other.js'; export class A {}", "a script has no other modules"),
        ("import 'satsuma:prelude'; export class A {}", "a script has no other modules"),
    ] {
        let error = compile(source).unwrap_err();
        assert!(error.contains(problem), "{source}: {error}");
    }
}

#[test]
fn search_for_a_long_text_takes_the_sum_of_lengths() {
    // The product of the lengths would take the engine minutes, in which nothing stops it.
    let source = r#"
        const a = "a".repeat(40000), word = "a".repeat(20000) + "b", hit = a + "b" + a;
        const seen = [a.indexOf(word), a.includes(word), a.lastIndexOf(word), hit.indexOf(word), hit.includes(word),
          hit.lastIndexOf(word), hit.indexOf(word, 20001), hit.includes(word, 20000), hit.lastIndexOf(word, 19999),
          a.indexOf(a), a.lastIndexOf("a".repeat(10000)), a.lastIndexOf("a".repeat(10000), 7), a.indexOf("a".repeat(10000), -3),
          a.indexOf("a".repeat(10000), NaN), a.indexOf("a".repeat(10000), 2.9), a.lastIndexOf("a".repeat(10000), NaN)];
        for (const name of ["split", "replace", "replaceAll"]) {
          try { a[name](word, ""); } catch (error) { seen.push(error.message); }
        }
        return seen;
    "#;
    let long = |name: &str| format!("the text to look for is too long for {name}");
    assert_eq!(
        body(source),
        Ok(json!([
            -1,
            false,
            -1,
            20_000,
            true,
            20_000,
            -1,
            true,
            -1,
            0,
            30_000,
            7,
            0,
            0,
            2,
            30_000,
            long("split"),
            long("replace"),
            long("replaceAll")
        ]))
    );
    let source = r#"
        const text = "abcabc", none = [];
        for (const f of [() => String.prototype.indexOf.call(null, "a"), () => text.includes(/a/), () => new text.indexOf("a")]) {
          try { f(); } catch (error) { none.push(error.name); }
        }
        return [text.indexOf("c"), text.indexOf("c", 3), text.lastIndexOf("a"), text.includes("ca"), text.split("b"), text.split(),
          text.replace("b", "$&$&"), text.replaceAll("b", (b) => b + 1), text.replace(/a/g, "x"), text.split("", 2), Object.keys(String.prototype).length,
          text.indexOf.name, none];
    "#;
    assert_eq!(
        body(source),
        Ok(json!([
            2,
            5,
            3,
            true,
            ["a", "ca", "c"],
            ["abcabc"],
            "abbcabc",
            "ab1cab1c",
            "xbcxbc",
            ["a", "b"],
            0,
            "indexOf",
            ["TypeError", "TypeError", "TypeError"]
        ]))
    );
}
