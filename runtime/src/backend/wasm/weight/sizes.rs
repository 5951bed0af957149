//! How large types are: what the compiler makes of them anew, each time that an instance has them or that a value of them is
//! translated.

use std::collections::HashMap;

use wasmparser_compiler::PrimitiveValType;
use wasmparser_compiler::component_types::{
    ComponentAnyTypeId, ComponentDefinedType, ComponentDefinedTypeId, ComponentEntityType, ComponentFuncTypeId,
    ComponentInstanceTypeId, ComponentItem, ComponentTypeId, ComponentValType,
};
use wasmparser_compiler::types::TypesRef;

/// Those that were asked for. Each is gone through once.
#[derive(Default)]
pub(super) struct Sizes {
    values: HashMap<ComponentDefinedTypeId, u64>,
    instances: HashMap<ComponentInstanceTypeId, u64>,
    components: HashMap<ComponentTypeId, u64>,
}

/// No more than fits.
pub(super) fn sum(all: impl Iterator<Item = u64>) -> u64 {
    all.fold(0, u64::saturating_add)
}

impl Sizes {
    /// How much code translates the parameters and the result of a function, counted in numbers.
    pub(super) fn function(&mut self, types: TypesRef<'_>, id: ComponentFuncTypeId) -> u64 {
        let Some(function) = types.get(id) else { return 0 };
        let values = function.params.iter().map(|(_, value)| value).chain(&function.result);
        sum(values.map(|value| self.value(types, *value)))
    }

    fn value(&mut self, types: TypesRef<'_>, value: ComponentValType) -> u64 {
        const LOOP: u64 = 16;
        use ComponentDefinedType as T;
        let id = match value {
            ComponentValType::Primitive(PrimitiveValType::String) => return LOOP,
            ComponentValType::Primitive(_) => return 1,
            ComponentValType::Type(id) => id,
        };
        if let Some(size) = self.values.get(&id) {
            return *size;
        }
        let Some(ty) = types.get(id) else { return 0 };
        let mut of = |value: &ComponentValType| self.value(types, *value);
        let all = match ty {
            T::Primitive(primitive) => of(&ComponentValType::Primitive(*primitive)),
            T::Record(record) => sum(record.fields.values().map(of)),
            T::Tuple(tuple) => sum(tuple.types.iter().map(of)),
            T::Variant(variant) => {
                sum(variant.cases.values().map(|case| case.ty.as_ref().map_or(0, &mut of).saturating_add(1)))
            }
            T::Enum(cases) => cases.len() as u64,
            T::Flags(flags) => flags.len() as u64 / 32,
            T::List { element, .. } => of(element).saturating_add(LOOP),
            T::Map { key, value, .. } => of(key).saturating_add(of(value)).saturating_add(LOOP),
            T::FixedLengthList { element, length, .. } => of(element).saturating_mul(u64::from(*length)),
            T::Option { ty, .. } => of(ty).saturating_add(1),
            T::Result { ok, err, .. } => sum(ok.iter().chain(err).map(of)).saturating_add(1),
            _ => 0,
        };
        let size = all.saturating_add(1);
        self.values.insert(id, size);
        size
    }

    /// What there is in an instance of this type, as far as the type tells.
    pub(super) fn instance(&mut self, types: TypesRef<'_>, id: ComponentInstanceTypeId) -> u64 {
        if let Some(size) = self.instances.get(&id) {
            return *size;
        }
        let Some(instance) = types.get(id) else { return 0 };
        let size = self.items(types, instance.exports.values());
        self.instances.insert(id, size);
        size
    }

    /// A type that is given to others.
    pub(super) fn any(&mut self, types: TypesRef<'_>, id: ComponentAnyTypeId) -> u64 {
        let inner = match id {
            ComponentAnyTypeId::Func(id) => types.get(id).map_or(0, |function| function.params.len()) as u64,
            ComponentAnyTypeId::Instance(id) => self.instance(types, id),
            ComponentAnyTypeId::Component(id) => self.component(types, id),
            ComponentAnyTypeId::Resource(_) | ComponentAnyTypeId::Defined(_) => 0,
        };
        inner.saturating_add(1)
    }

    fn component(&mut self, types: TypesRef<'_>, id: ComponentTypeId) -> u64 {
        if let Some(size) = self.components.get(&id) {
            return *size;
        }
        let Some(component) = types.get(id) else { return 0 };
        let size = self.items(types, component.imports.values().chain(component.exports.values()));
        self.components.insert(id, size);
        size
    }

    fn items<'i>(&mut self, types: TypesRef<'_>, items: impl Iterator<Item = &'i ComponentItem>) -> u64 {
        let of = |item: &ComponentItem| match item.ty {
            ComponentEntityType::Module(id) => {
                types.get(id).map_or(0, |module| module.imports.len() + module.exports.len()) as u64 + 1
            }
            ComponentEntityType::Func(id) => self.any(types, ComponentAnyTypeId::Func(id)),
            ComponentEntityType::Instance(id) => self.any(types, ComponentAnyTypeId::Instance(id)),
            ComponentEntityType::Component(id) => self.any(types, ComponentAnyTypeId::Component(id)),
            ComponentEntityType::Type { created, .. } => self.any(types, created),
            ComponentEntityType::Value(_) => 1,
        };
        sum(items.map(of))
    }
}
