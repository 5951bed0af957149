//! What a component's parts come to when they are put together. The compiler does so once for each time that one of them is
//! instantiated by another, and copies what they give each other: ten levels, each of which instantiates the one below ten
//! times, are a few hundred bytes and 10^10 instances. So it is done here first, with nothing but counts, and not to its end.
//!
//! What a function that one component has of another is given is translated by code that is made for it: an adapter, by the size
//! of the function's type, for each of these instances.

use std::collections::HashMap;
use std::rc::Rc;

use wasmparser_compiler::component_types::{ComponentDefinedType, ComponentDefinedTypeId, ComponentValType};
use wasmparser_compiler::types::TypesRef;
use wasmparser_compiler::{
    CanonicalFunction, ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ComponentTypeRef, Encoding, Instance, Payload, PrimitiveValType,
};

/// More parts than any composition of components has; who has more is not followed further.
pub(in super::super) const MOST_PARTS: u64 = 1 << 20;

/// Instances within each other: what copies them calls itself for each.
pub(in super::super) const DEEPEST: u64 = 256;

/// What the parts come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Whole {
    /// Instances, functions, and what is copied from one to another.
    pub(super) parts: u64,
    /// How deep instances are within each other.
    pub(super) depth: u64,
    /// Functions that may need an adapter, and the sizes of their types.
    pub(super) adapters: u64,
    pub(super) translated: u64,
}

/// A component's definition, and those within it.
#[derive(Default)]
pub(super) struct Definitions<'a> {
    /// The outermost is the first.
    all: Vec<Definition<'a>>,
    /// Those that are being read; `None` is a core module.
    open: Vec<Option<usize>>,
    sizes: HashMap<ComponentDefinedTypeId, u64>,
}

#[derive(Default)]
struct Definition<'a> {
    steps: Vec<Step<'a>>,
    exports: Vec<Named<'a>>,
}

/// What is taken from an index space, by the name that it is given away with.
type Named<'a> = (&'a str, Sort, u32);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Instance,
    Component,
    /// Nothing that others are made of.
    Other,
}

/// What an instance of a definition begins with, in order.
enum Step<'a> {
    /// So many parts.
    Parts(u64),
    /// A function whose type has this size is called here.
    Lower(u64),
    Import(&'a str, Sort),
    Nested(usize),
    /// A component of the definition so far around this one.
    Outer(u32, u32),
    /// What an instance exports.
    Exported(u32, &'a str, Sort),
    Again(Sort, u32),
    Instantiate(u32, Vec<Named<'a>>),
    Bag(Vec<Named<'a>>),
}

impl From<ComponentExternalKind> for Sort {
    fn from(kind: ComponentExternalKind) -> Self {
        match kind {
            ComponentExternalKind::Instance => Self::Instance,
            ComponentExternalKind::Component => Self::Component,
            _ => Self::Other,
        }
    }
}

impl<'a> Definitions<'a> {
    /// Takes what was found valid; `types` are those that are known after it.
    pub(super) fn read(
        &mut self,
        payload: &Payload<'a>,
        types: Option<TypesRef<'_>>,
    ) -> wasmparser_compiler::Result<()> {
        match payload {
            Payload::Version { encoding: Encoding::Module, .. } => {
                self.step(Step::Parts(1));
                self.open.push(None);
            }
            Payload::Version { encoding: Encoding::Component, .. } => {
                let index = self.all.len();
                self.step(Step::Nested(index));
                self.all.push(Definition::default());
                self.open.push(Some(index));
            }
            Payload::End(_) => {
                self.open.pop();
            }
            Payload::ComponentImportSection(imports) => {
                for import in imports.clone() {
                    let import = import?;
                    let sort = match import.ty {
                        ComponentTypeRef::Instance(_) => Sort::Instance,
                        ComponentTypeRef::Component(_) => Sort::Component,
                        _ => Sort::Other,
                    };
                    self.step(Step::Import(import.name.name, sort));
                }
            }
            Payload::ComponentAliasSection(aliases) => {
                for alias in aliases.clone() {
                    self.step(match alias? {
                        ComponentAlias::InstanceExport { kind, instance_index, name } => {
                            Step::Exported(instance_index, name, kind.into())
                        }
                        ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                            Step::Outer(count, index)
                        }
                        _ => Step::Parts(1),
                    });
                }
            }
            Payload::ComponentInstanceSection(instances) => {
                for instance in instances.clone() {
                    self.step(match instance? {
                        ComponentInstance::Instantiate { component_index, args } => {
                            let args = args.iter().map(|arg| (arg.name, arg.kind.into(), arg.index));
                            Step::Instantiate(component_index, args.collect())
                        }
                        ComponentInstance::FromExports(exports) => {
                            let exports =
                                exports.iter().map(|export| (export.name.name, export.kind.into(), export.index));
                            Step::Bag(exports.collect())
                        }
                    });
                }
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports.clone() {
                    let export = export?;
                    let sort = export.kind.into();
                    self.step(Step::Again(sort, export.index));
                    if let Some(definition) = self.current() {
                        definition.exports.push((export.name.name, sort, export.index));
                    }
                }
            }
            Payload::InstanceSection(instances) => {
                for instance in instances.clone() {
                    let given = match (instance?, types) {
                        (Instance::Instantiate { module_index, .. }, Some(types)) => {
                            types[types.module_at(module_index)].imports.len()
                        }
                        _ => 0,
                    };
                    self.step(Step::Parts(1 + given as u64));
                }
            }
            Payload::ComponentCanonicalSection(functions) => {
                for function in functions.clone() {
                    let step = match (function?, types) {
                        (CanonicalFunction::Lower { func_index, .. }, Some(types)) => {
                            let function = &types[types.component_function_at(func_index)];
                            let given = function.params.iter().map(|(_, given)| given).chain(&function.result);
                            Step::Lower(given.map(|given| size(&mut self.sizes, types, *given)).sum())
                        }
                        _ => Step::Parts(1),
                    };
                    self.step(step);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn current(&mut self) -> Option<&mut Definition<'a>> {
        self.open.last().copied().flatten().and_then(|index| self.all.get_mut(index))
    }

    fn step(&mut self, step: Step<'a>) {
        if let Some(definition) = self.current() {
            definition.steps.push(step);
        }
    }

    /// Puts the parts together, as far as they are valid and not too many.
    pub(super) fn whole(&self) -> Whole {
        let mut assembly = Assembly { definitions: &self.all, ..Assembly::default() };
        if !self.all.is_empty() {
            assembly.begin(Closure { definition: 0, around: None }, HashMap::new());
            while assembly.whole.parts <= MOST_PARTS && assembly.whole.depth <= DEEPEST && assembly.advance().is_some()
            {
            }
        }
        assembly.whole
    }
}

/// How much code translates a value, counted in numbers.
fn size(known: &mut HashMap<ComponentDefinedTypeId, u64>, types: TypesRef<'_>, value: ComponentValType) -> u64 {
    const LOOP: u64 = 16;
    use ComponentDefinedType as T;
    let id = match value {
        ComponentValType::Primitive(PrimitiveValType::String) => return LOOP,
        ComponentValType::Primitive(_) => return 1,
        ComponentValType::Type(id) => id,
    };
    if let Some(size) = known.get(&id) {
        return *size;
    }
    let mut of = |value: &ComponentValType| size(known, types, *value);
    let all = match &types[id] {
        T::Primitive(primitive) => of(&ComponentValType::Primitive(*primitive)),
        T::Record(record) => record.fields.values().map(of).sum(),
        T::Tuple(tuple) => tuple.types.iter().map(of).sum(),
        T::Variant(variant) => variant.cases.values().map(|case| 1 + case.ty.as_ref().map_or(0, &mut of)).sum(),
        T::Enum(cases) => cases.len() as u64,
        T::Flags(flags) => flags.len() as u64 / 32,
        T::List { element, .. } => LOOP + of(element),
        T::Map { key, value, .. } => LOOP + of(key) + of(value),
        T::FixedLengthList { element, length, .. } => of(element).saturating_mul(u64::from(*length)),
        T::Option { ty, .. } => 1 + of(ty),
        T::Result { ok, err, .. } => 1 + ok.iter().chain(err).map(of).sum::<u64>(),
        _ => 0,
    };
    let size = all.saturating_add(1);
    known.insert(id, size);
    size
}

/// A definition, and the instance in which it was met.
#[derive(Clone, Copy)]
struct Closure {
    definition: usize,
    around: Option<usize>,
}

/// What one part gives another.
#[derive(Clone)]
enum Item<'a> {
    Instance(Rc<Exports<'a>>),
    Component(Closure),
    Other,
}

#[derive(Default)]
struct Exports<'a> {
    items: HashMap<&'a str, Item<'a>>,
    /// Items, and those in them: instances are copied with all that they have.
    size: u64,
    depth: u64,
}

impl Item<'_> {
    fn size(&self) -> u64 {
        match self {
            Self::Instance(exports) => 1 + exports.size,
            _ => 1,
        }
    }

    fn depth(&self) -> u64 {
        match self {
            Self::Instance(exports) => 1 + exports.depth,
            _ => 0,
        }
    }
}

/// The instance of a definition that is being put together.
struct Frame<'d, 'a> {
    definition: &'d Definition<'a>,
    steps: std::slice::Iter<'d, Step<'a>>,
    given: HashMap<&'a str, Item<'a>>,
    instances: Vec<Rc<Exports<'a>>>,
    /// Its place among all that there were.
    number: usize,
}

#[derive(Default)]
struct Assembly<'d, 'a> {
    definitions: &'d [Definition<'a>],
    frames: Vec<Frame<'d, 'a>>,
    /// The components that each instance knows, and the instance around its definition.
    known: Vec<(Vec<Closure>, Option<usize>)>,
    whole: Whole,
}

impl<'a> Assembly<'_, 'a> {
    /// `None`: all is put together, or what is to be taken is not there, which the compiler finds as well.
    fn advance(&mut self) -> Option<()> {
        let Some(step) = self.frames.last_mut()?.steps.next() else { return self.end() };
        match step {
            Step::Parts(parts) => self.whole.parts += parts,
            Step::Lower(size) => {
                self.whole.parts += 1;
                self.whole.adapters += 1;
                self.whole.translated = self.whole.translated.saturating_add(*size);
            }
            Step::Import(name, sort) => {
                let frame = self.frames.last()?;
                let item = frame.given.get(name).cloned().or_else(|| from_outside(*sort))?;
                self.push(item)?;
            }
            Step::Nested(definition) => {
                let around = Some(self.frames.last()?.number);
                self.push(Item::Component(Closure { definition: *definition, around }))?;
            }
            Step::Outer(count, index) => {
                let mut at = self.frames.last()?.number;
                for _ in 0..*count {
                    at = self.known.get(at)?.1?;
                }
                let closure = *self.known.get(at)?.0.get(*index as usize)?;
                self.push(Item::Component(closure))?;
            }
            Step::Exported(instance, name, sort) => {
                let exports = self.frames.last()?.instances.get(*instance as usize)?;
                let item = exports.items.get(name).cloned().or_else(|| from_outside(*sort))?;
                self.push(item)?;
            }
            Step::Again(sort, index) => {
                let item = self.item(*sort, *index)?;
                self.push(item)?;
            }
            Step::Instantiate(component, args) => {
                let Item::Component(closure) = self.item(Sort::Component, *component)? else { return None };
                let given = self.named(args)?;
                self.begin(closure, given.items);
            }
            Step::Bag(items) => {
                let bag = self.named(items)?;
                self.frames.last_mut()?.instances.push(Rc::new(bag));
            }
        }
        Some(())
    }

    fn begin(&mut self, closure: Closure, given: HashMap<&'a str, Item<'a>>) {
        let Some(definition) = self.definitions.get(closure.definition) else { return };
        self.whole.parts += 1;
        let number = self.known.len();
        self.known.push((Vec::new(), closure.around));
        let steps = definition.steps.iter();
        self.frames.push(Frame { definition, steps, given, instances: Vec::new(), number });
    }

    /// All that a definition has is there: whoever instantiates it has what it exports.
    fn end(&mut self) -> Option<()> {
        let exports = self.named(&self.frames.last()?.definition.exports)?;
        self.frames.pop();
        self.frames.last_mut()?.instances.push(Rc::new(exports));
        Some(())
    }

    fn item(&self, sort: Sort, index: u32) -> Option<Item<'a>> {
        let (frame, index) = (self.frames.last()?, index as usize);
        Some(match sort {
            Sort::Instance => Item::Instance(Rc::clone(frame.instances.get(index)?)),
            Sort::Component => Item::Component(*self.known.get(frame.number)?.0.get(index)?),
            Sort::Other => Item::Other,
        })
    }

    /// A copy of each of them.
    fn named(&mut self, named: &[Named<'a>]) -> Option<Exports<'a>> {
        let mut exports = Exports::default();
        for (name, sort, index) in named {
            let item = self.item(*sort, *index)?;
            exports.size = exports.size.saturating_add(item.size());
            exports.depth = exports.depth.max(item.depth());
            exports.items.insert(*name, item);
        }
        self.whole.parts = self.whole.parts.saturating_add(1 + exports.size);
        self.whole.depth = self.whole.depth.max(exports.depth);
        Some(exports)
    }

    fn push(&mut self, item: Item<'a>) -> Option<()> {
        self.whole.parts = self.whole.parts.saturating_add(item.size());
        let frame = self.frames.last_mut()?;
        match item {
            Item::Instance(exports) => frame.instances.push(exports),
            Item::Component(closure) => self.known.get_mut(frame.number)?.0.push(closure),
            Item::Other => {}
        }
        Some(())
    }
}

/// What the host gives.
fn from_outside<'a>(sort: Sort) -> Option<Item<'a>> {
    match sort {
        Sort::Instance => Some(Item::Instance(Rc::default())),
        Sort::Component => None,
        Sort::Other => Some(Item::Other),
    }
}

#[cfg(test)]
mod tests {
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
        let items: String = (0..2000).map(|at| format!(r#"(export "a{at}" (type $t))"#)).collect();
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
        let bags: String =
            (1..90).map(|at| format!(r#"(instance $i{at} (export "a" (instance $i{})))"#, at - 1)).collect();
        let level = format!(
            r#"(component $level (import "i" (instance $i0)) {bags}
                (type $hidden (instance)) (export "o" (instance $i89) (instance (type $hidden))))"#
        );
        let next = |at: usize| {
            let given = format!(r#"(instance $n{at} (instantiate $level (with "i" (instance $o{at}))))"#);
            format!(r#"{given} (alias export $n{at} "o" (instance $o{}))"#, at + 1)
        };
        let depth = |levels: usize| {
            let all: String = (0..levels).map(next).collect();
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
        let doubled: String = (1..=16).map(|at| format!("(type $t{at} (tuple $t{0} $t{0}))", at - 1)).collect();
        let types = format!("(type $t0 (tuple u32 u32)) {doubled}");
        let [small, large] = [calls(&types, "$t4", 1), calls(&types, "$t16", 1)];
        assert!(small < 100 << 10 && large > 10 << 20, "{small} {large}");
        assert!(calls(&types, "$t16", 40) > 30 * large);
        assert!(calls(&types, "$t4", 40) > 40 * ADAPTER);
    }
}
