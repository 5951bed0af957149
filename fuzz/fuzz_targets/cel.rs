//! CEL: a text compiles or is refused; what compiles has the same value each time, or the same error, within its budget.
//!
//! The crate's parser may panic, and the caller catches that; so a panic alone is no crash here, only one that gets out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use wherry_api::cel::{Budget, Decl, PER_CALL, Program, Type, Val};

fn evaluate(program: &Program, object: &Value) -> Result<Option<Value>, String> {
    let lookup = |name: &str, _: &mut Budget| (name == "object").then(|| Ok(Val::of(object, &Type::Dyn)));
    let value = program.eval(&lookup, &mut Budget::new(PER_CALL)).map_err(|error| error.to_string())?;
    Ok(value.to_json())
}

fuzz_target!(
    init: std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))),
    |source: &str| {
        let vars = [("object".to_owned(), Decl::from(Type::Dyn))];
        let Ok(program) = Program::compile(source, &vars) else { return };
        assert_eq!(program.source(), source);
        let object = json!({"a": 1, "s": "text", "l": [3, 1, 2], "m": {"k": "v"}, "n": null, "q": "1500m"});
        let first = evaluate(&program, &object);
        assert_eq!(evaluate(&program, &object), first);
    }
);
