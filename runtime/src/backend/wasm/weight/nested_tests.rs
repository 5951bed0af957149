//! Components that are made for it, and what they come to.

use super::super::{ADAPTER, Weight, weigh};
use super::*;

fn weight(text: &str) -> Weight {
    weigh(&wat::parse_str(text).unwrap())
}

/// So many levels of components, each of which instantiates the one below ten times.
fn nested(levels: usize) -> String {
    (0..levels).fold("(component)".to_owned(), |inner, _| {
        let inner = inner.replacen("(component", "(component $inner", 1);
        format!("(component {inner} {})", "(instance (instantiate $inner))".repeat(10))
    })
}

#[test]
fn a_component_counts_as_often_as_it_is_instantiated() {
    let parts = weight(&nested(3)).parts;
    assert!((1000..10_000).contains(&parts), "{parts}");
    let parts = weight(&nested(12)).parts;
    assert!((MOST_PARTS + 1..MOST_PARTS + 100).contains(&parts), "it is not followed to its end: {parts}");
}

/// A component with an instance `$many` of 2,000 exports.
fn with_many(rest: &str) -> u64 {
    let items = (0..2000).map(|at| format!(r#"(export "a{at}" (type $t))"#)).collect::<Vec<_>>().concat();
    weight(&format!("(component (type $t u8) (instance $many {items}) {rest})")).parts
}

#[test]
fn what_one_instance_gives_another_counts_with_all_that_it_has() {
    let outer = r#"(instance $outer (export "a" (instance $many)))"#;
    let aliases = |times: usize| outer.to_owned() + &r#"(alias export $outer "a" (instance))"#.repeat(times);
    assert!((20_000..40_000).contains(&with_many(&aliases(10))));
    assert!(with_many(&aliases(900)) > MOST_PARTS);
}

#[test]
fn what_is_given_counts_also_where_less_is_known_of_it() {
    let bags = r#"(instance (export "a" (instance $given)))"#.repeat(900);
    let hides = format!(r#"(component $hides (import "i" (instance $given)) {bags})"#);
    assert!(with_many(&hides) < 20_000);
    let given = r#"(instance (instantiate $hides (with "i" (instance $many))))"#;
    assert!(with_many(&(hides + given)) > MOST_PARTS);
}

#[test]
fn how_deep_instances_are_within_each_other_is_known_where_their_types_do_not_tell() {
    let bags = (1..90)
        .map(|at| format!(r#"(instance $i{at} (export "a" (instance $i{})))"#, at - 1))
        .collect::<Vec<_>>()
        .concat();
    let level = format!(
        r#"(component $level (import "i" (instance $i0)) {bags}
            (type $hidden (instance)) (export "o" (instance $i89) (instance (type $hidden))))"#
    );
    let next = |at: usize| {
        let given = format!(r#"(instance $n{at} (instantiate $level (with "i" (instance $o{at}))))"#);
        format!(r#"{given} (alias export $n{at} "o" (instance $o{}))"#, at + 1)
    };
    let depth = |levels: usize| {
        let all = (0..levels).map(next).collect::<Vec<_>>().concat();
        weight(&format!("(component {level} (instance $o0) {all})")).depth
    };
    assert_eq!(depth(2), 2 * 89 + 1, "what is given out is one more");
    assert!(depth(30) > DEEPEST);
}

#[test]
fn components_that_are_given_or_of_a_definition_around_count_as_well() {
    let ten = nested(1).replacen("(component", "(component $ten", 1);
    let times = "(instance (instantiate $it))".repeat(100);
    let alone = weight(&format!("(component {ten})")).parts;
    let given = format!(r#"(component $user (import "it" (component $it)) {times})"#);
    let user = r#"(instance (instantiate $user (with "it" (component $ten))))"#;
    let around = format!("(component $user (alias outer 1 $ten (component $it)) {times})");
    for text in [format!("{given} {user}"), format!("{around} (instance (instantiate $user))")] {
        assert!(weight(&format!("(component {ten} {text})")).parts > alone + 1000, "{text}");
    }
}

/// So many levels of components that are never instantiated, each of which names the one before so often.
fn closed(levels: usize, times: usize) -> Weight {
    let level = |at: usize| {
        let named = format!("(alias outer 1 $c{} (component))", at - 1).repeat(times);
        format!("(component $c{at} {named})")
    };
    let all = (1..=levels).map(level).collect::<Vec<_>>().concat();
    weight(&format!("(component (component $c0) {all})"))
}

#[test]
fn what_a_component_takes_from_around_it_counts_with_all_that_it_takes_itself() {
    assert!(closed(3, 2).parts < 100 && closed(40, 2).parts > MOST_PARTS);
    assert_eq!(closed(90, 1).depth, 90);
    assert!(closed(300, 1).depth > DEEPEST);
    let module = "(core module $m)";
    let named = "(alias outer 1 $m (core module))".repeat(900);
    let taken = format!("(component $c {named}) {}", "(instance (instantiate $c))".repeat(900));
    assert!(weight(&format!("(component {module} {taken})")).parts > 900 * 900);
}

#[test]
fn the_type_of_an_instance_counts_each_time_that_there_is_one() {
    let names = |item: &str| (0..500).map(|at| format!(r#"(export "a{at}" {item})"#)).collect::<Vec<_>>().concat();
    let types =
        format!("(type $t0 (instance {})) (type $t1 (instance {}))", names("(func)"), names("(instance (type $t0))"));
    let import = r#"(import "i" (instance $i (type $t1)))"#;
    let bags = |times: usize| r#"(instance (export "a" (instance $i)))"#.repeat(times);
    let parts = |times: usize| weight(&format!("(component {types} {import} {})", bags(times))).parts;
    assert!(parts(0) < 1000 && parts(1) > 250_000 && parts(5) > MOST_PARTS);
    // Also where a type alone is given, which nobody asked for.
    let given =
        |times: usize| (0..times).map(|at| format!(r#"(with "b{at}" (type $t1))"#)).collect::<Vec<_>>().concat();
    let component =
        |times: usize| format!("(component {types} (component $c) (instance (instantiate $c {})))", given(times));
    assert!(weight(&component(1)).parts > 250_000 && weight(&component(5)).parts > MOST_PARTS);
}

#[test]
fn components_as_people_make_them_have_few_parts() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples-wasm/prebuilt");
    let all = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let parts: Vec<u64> = all
        .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
        .map(|path| weigh(&std::fs::read(path).unwrap()).parts)
        .collect();
    assert!(parts.len() > 3 && parts.iter().all(|parts| *parts < MOST_PARTS / 100), "{parts:?}");
}

/// A component whose function takes `value`, and one that calls it and is there so many times.
fn calls(types: &str, value: &str, times: usize) -> u64 {
    let function = format!(r#"{types} (type $f (func (param "x" {value})))"#);
    let memory = r#"(core module $m (memory (export "m") 1)
            (func (export "r") (param i32 i32 i32 i32) (result i32) unreachable) (func (export "f") (param i32)))
        (core instance $i (instantiate $m)) (alias core export $i "m" (core memory $m))
        (alias core export $i "r" (core func $r))"#;
    let caller = "(instance (instantiate $caller (with \"f\" (func $callee \"f\"))))".repeat(times);
    weight(&format!(
        r#"(component
            (component $callee {function} {memory}
                (func (export "f") (type $f) (canon lift (core func $i "f") (memory $m) (realloc (func $r)))))
            (component $caller {function} (import "f" (func $f (type $f))) {memory}
                (core func (canon lower (func $f) (memory $m) (realloc (func $r)))))
            (instance $callee (instantiate $callee)) {caller})"#
    ))
    .kept
}

#[test]
fn what_translates_between_components_weighs_by_its_type_and_as_often_as_there_are_callers() {
    let doubled = (1..=16).map(|at| format!("(type $t{at} (tuple $t{0} $t{0}))", at - 1)).collect::<Vec<_>>().concat();
    let types = format!("(type $t0 (tuple u32 u32)) {doubled}");
    let [small, large] = [calls(&types, "$t4", 1), calls(&types, "$t16", 1)];
    assert!(small < 100 << 10 && large > 10 << 20, "{small} {large}");
    assert!(calls(&types, "$t16", 40) > 30 * large);
    assert!(calls(&types, "$t4", 40) > 40 * ADAPTER);
}
