//! What a component's parts come to when they are put together. The compiler does so once for each time that one of them is
//! instantiated by another, and copies what they give each other, and what each of them takes from the definitions around it:
//! ten levels, each of which instantiates the one below ten times, are a few hundred bytes and 10^10 instances. So it is done
//! here first, with nothing but counts, and not to its end.
//!
//! What a function that one component has of another is given is translated by code that is made for it: an adapter, by the size
//! of the function's type, for each of these instances.

use std::collections::HashMap;
use std::rc::Rc;

use wasmparser_compiler::types::TypesRef;
use wasmparser_compiler::{
    CanonicalFunction, ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ComponentTypeRef, Encoding, Instance, Payload,
};

use super::sizes::{Sizes, sum};

/// More parts than any composition of components has; who has more is not followed further.
pub(in super::super) const MOST_PARTS: u64 = 1 << 20;

/// Instances within each other, and components that others take from around them: what copies them calls itself for each.
pub(in super::super) const DEEPEST: u64 = 256;

/// What the parts come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Whole {
    /// Instances, functions, and what is copied from one to another.
    pub(super) parts: u64,
    /// How deep instances are within each other, and components within what others take.
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
    sizes: Sizes,
}

#[derive(Default)]
struct Definition<'a> {
    steps: Vec<Step<'a>>,
    exports: Vec<Named<'a>>,
    /// The components that it takes from the definition around it: again for each time that one is named.
    closes: Vec<Closed>,
    /// The core modules that it takes.
    modules: u64,
}

/// A component that is taken from a definition.
#[derive(Clone, Copy)]
enum Closed {
    /// One of its own.
    Own(u32),
    /// One that it takes itself.
    Taken(usize),
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
    /// A component of a definition around this one.
    Outer(Closed),
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
                    let step = match alias? {
                        ComponentAlias::InstanceExport { kind, instance_index, name } => {
                            Step::Exported(instance_index, name, kind.into())
                        }
                        ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                            Step::Outer(self.close(count, index))
                        }
                        ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, count, .. } => {
                            self.within(count).for_each(|definition| definition.modules += 1);
                            Step::Parts(1)
                        }
                        _ => Step::Parts(1),
                    };
                    self.step(step);
                }
            }
            Payload::ComponentInstanceSection(instances) => {
                // The newest of those that are known.
                let first = types.map_or(0, |types| types.component_instance_count().saturating_sub(instances.count()));
                for (instance, index) in instances.clone().into_iter().zip(first..) {
                    if let Some(types) = types {
                        let size = self.sizes.instance(types, types.component_instance_at(index));
                        self.step(Step::Parts(size));
                    }
                    match instance? {
                        ComponentInstance::Instantiate { component_index, args } => {
                            args.iter().for_each(|arg| self.given_type(types, arg.kind, arg.index));
                            let args = args.iter().map(|arg| (arg.name, arg.kind.into(), arg.index));
                            self.step(Step::Instantiate(component_index, args.collect()));
                        }
                        ComponentInstance::FromExports(exports) => {
                            exports.iter().for_each(|export| self.given_type(types, export.kind, export.index));
                            let exports =
                                exports.iter().map(|export| (export.name.name, export.kind.into(), export.index));
                            self.step(Step::Bag(exports.collect()));
                        }
                    }
                }
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports.clone() {
                    let export = export?;
                    let sort = export.kind.into();
                    self.given_type(types, export.kind, export.index);
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
                            types.get(types.module_at(module_index)).map_or(0, |module| module.imports.len())
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
                            Step::Lower(self.sizes.function(types, types.component_function_at(func_index)))
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

    /// A type that is given to others is made anew for them.
    fn given_type(&mut self, types: Option<TypesRef<'_>>, kind: ComponentExternalKind, index: u32) {
        if let (ComponentExternalKind::Type, Some(types)) = (kind, types) {
            let size = self.sizes.any(types, types.component_any_type_at(index));
            self.step(Step::Parts(size));
        }
    }

    fn current(&mut self) -> Option<&mut Definition<'a>> {
        self.open.last().copied().flatten().and_then(|index| self.all.get_mut(index))
    }

    /// The definitions within the one that is so far around the one that is read, from the outside in.
    fn within(&mut self, count: u32) -> impl Iterator<Item = &mut Definition<'a>> {
        let outside = self.open.len().saturating_sub(count as usize);
        let open: Vec<usize> = self.open.iter().skip(outside).copied().flatten().collect();
        // In the order in which they began.
        self.all.iter_mut().enumerate().filter(move |(at, _)| open.contains(at)).map(|(_, definition)| definition)
    }

    /// Takes a component of a definition around the one that is read, through all between them.
    fn close(&mut self, count: u32, index: u32) -> Closed {
        self.within(count).fold(Closed::Own(index), |from, definition| {
            definition.closes.push(from);
            Closed::Taken(definition.closes.len() - 1)
        })
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
            let outermost = Closure { definition: 0, closes: Rc::default(), size: 0, depth: 0 };
            assembly.begin(&outermost, HashMap::new());
            while assembly.whole.parts <= MOST_PARTS && assembly.whole.depth <= DEEPEST && assembly.advance().is_some()
            {
            }
        }
        assembly.whole
    }
}

/// A definition, with what it takes from around it. It is copied with all of that.
#[derive(Clone)]
struct Closure {
    definition: usize,
    closes: Rc<[Closure]>,
    size: u64,
    depth: u64,
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
            Self::Instance(exports) => exports.size.saturating_add(1),
            Self::Component(closure) => closure.size.saturating_add(1),
            Self::Other => 1,
        }
    }

    fn depth(&self) -> u64 {
        match self {
            Self::Instance(exports) => 1 + exports.depth,
            Self::Component(closure) => closure.depth,
            Self::Other => 0,
        }
    }
}

/// The instance of a definition that is being put together.
struct Frame<'d, 'a> {
    definition: &'d Definition<'a>,
    steps: std::slice::Iter<'d, Step<'a>>,
    given: HashMap<&'a str, Item<'a>>,
    instances: Vec<Rc<Exports<'a>>>,
    components: Vec<Closure>,
    closes: Rc<[Closure]>,
}

impl Frame<'_, '_> {
    fn closed(&self, closed: Closed) -> Option<Closure> {
        match closed {
            Closed::Own(index) => self.components.get(index as usize).cloned(),
            Closed::Taken(index) => self.closes.get(index).cloned(),
        }
    }
}

#[derive(Default)]
struct Assembly<'d, 'a> {
    definitions: &'d [Definition<'a>],
    frames: Vec<Frame<'d, 'a>>,
    whole: Whole,
}

impl<'a> Assembly<'_, 'a> {
    /// `None`: all is put together, or what is to be taken is not there, which the compiler finds as well.
    fn advance(&mut self) -> Option<()> {
        let Some(step) = self.frames.last_mut()?.steps.next() else { return self.end() };
        match step {
            Step::Parts(parts) => self.whole.parts = self.whole.parts.saturating_add(*parts),
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
                let closure = self.closure(*definition)?;
                self.push(Item::Component(closure))?;
            }
            Step::Outer(closed) => {
                let closure = self.frames.last()?.closed(*closed)?;
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
                self.begin(&closure, given.items);
            }
            Step::Bag(items) => {
                let bag = self.named(items)?;
                self.frames.last_mut()?.instances.push(Rc::new(bag));
            }
        }
        Some(())
    }

    /// A definition of the one that is being put together.
    fn closure(&self, definition: usize) -> Option<Closure> {
        let (frame, Definition { closes, modules, .. }) = (self.frames.last()?, self.definitions.get(definition)?);
        let closes: Rc<[Closure]> = closes.iter().map(|closed| frame.closed(*closed)).collect::<Option<_>>()?;
        let size = sum(closes.iter().map(|taken| taken.size.saturating_add(1))).saturating_add(*modules);
        let depth = closes.iter().map(|taken| 1 + taken.depth).max().unwrap_or_default();
        Some(Closure { definition, closes, size, depth })
    }

    fn begin(&mut self, closure: &Closure, given: HashMap<&'a str, Item<'a>>) {
        let Some(definition) = self.definitions.get(closure.definition) else { return };
        self.whole.parts = self.whole.parts.saturating_add(1).saturating_add(closure.size);
        let (steps, closes) = (definition.steps.iter(), Rc::clone(&closure.closes));
        self.frames.push(Frame { definition, steps, given, instances: Vec::new(), components: Vec::new(), closes });
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
            Sort::Component => Item::Component(frame.components.get(index)?.clone()),
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
        self.whole.parts = self.whole.parts.saturating_add(1).saturating_add(exports.size);
        self.whole.depth = self.whole.depth.max(exports.depth);
        Some(exports)
    }

    fn push(&mut self, item: Item<'a>) -> Option<()> {
        self.whole.parts = self.whole.parts.saturating_add(item.size());
        self.whole.depth = self.whole.depth.max(item.depth());
        let frame = self.frames.last_mut()?;
        match item {
            Item::Instance(exports) => frame.instances.push(exports),
            Item::Component(closure) => frame.components.push(closure),
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
#[path = "nested_tests.rs"]
mod tests;
