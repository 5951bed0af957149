//! Core modules of WASI preview 1 become components when they are pulled, so that everything that runs is a component.

use wasi_preview1_component_adapter_provider as adapters;
use wasmparser::{Encoding, Parser, Payload};
use wit_component::ComponentEncoder;

use super::{exit_code, weight};

/// Why bytes cannot be made a component.
#[derive(Debug, thiserror::Error)]
pub enum AdaptError {
    #[error("not WebAssembly: {0}")]
    NotWasm(String),
    /// A core module that the adapter cannot carry; names the import or export in the way.
    #[error("the module cannot be made a component: {0}")]
    Module(String),
}

/// What a file of WebAssembly is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Component,
    /// A core module with `_start`.
    Command,
    /// A core module whose exports are called.
    Reactor,
}

/// Makes a component of a core module; returns a component unchanged.
pub fn componentize(wasm: &[u8]) -> Result<Vec<u8>, AdaptError> {
    let adapter = match kind(wasm)? {
        Kind::Component => return Ok(wasm.to_vec()),
        Kind::Command => adapters::WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
        Kind::Reactor => adapters::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
    };
    let failed = |error: &dyn std::fmt::Display| AdaptError::Module(format!("{error:#}"));
    let redirected = exit_code::redirect(wasm).map_err(|e| failed(&e))?;
    let mut encoder = ComponentEncoder::default()
        .module(redirected.as_deref().unwrap_or(wasm))
        .and_then(|encoder| encoder.adapter(adapters::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter))
        .map_err(|e| failed(&e))?;
    if redirected.is_some() {
        let exits = exit_code::adapter().map_err(|e| failed(&e))?;
        encoder = encoder.adapter(exit_code::MODULE, &exits).map_err(|e| failed(&e))?;
    }
    encoder.validate(true).encode().map_err(|e| failed(&e))
}

fn kind(wasm: &[u8]) -> Result<Kind, AdaptError> {
    let mut found = Kind::Reactor;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(|e| AdaptError::NotWasm(e.to_string()))? {
            Payload::Version { encoding: Encoding::Component, .. } => return Ok(Kind::Component),
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export.map_err(|e| AdaptError::NotWasm(e.to_string()))?;
                    if export.name == "_start" {
                        found = Kind::Command;
                    }
                }
            }
            // The encoder reads what is in there, and takes nothing into account that it may be.
            Payload::CustomSection(section) if section.name().starts_with("component-type") => {
                weight::check(section.data()).map_err(AdaptError::Module)?;
            }
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_stays_as_it_is() {
        let wasm = wat::parse_str("(component)").unwrap();
        assert_eq!(componentize(&wasm).unwrap(), wasm);
    }

    #[test]
    fn a_module_with_start_becomes_a_component() {
        let wasm = wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_start")))"#).unwrap();
        assert_eq!(kind(&componentize(&wasm).unwrap()).unwrap(), Kind::Component);
    }

    #[test]
    fn what_a_module_says_of_its_types_is_not_read_deeper_than_the_stack_is() {
        let deep = (1..50_000).map(|at| format!("(type $t{at} (tuple $t{}))", at - 1)).collect::<Vec<_>>().concat();
        let types = wat::parse_str(format!("(component (type $t0 (tuple u8)) {deep})")).unwrap();
        let mut module = wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_start")))"#).unwrap();
        let section = wasm_encoder::CustomSection { name: "component-type:a".into(), data: types.into() };
        wasm_encoder::Section::append_to(&section, &mut module);
        let error = componentize(&module).unwrap_err().to_string();
        assert!(error.contains("type nesting is too deep"), "{error}");
    }

    #[test]
    fn what_is_not_wasm_says_so() {
        assert!(matches!(componentize(b"<html>"), Err(AdaptError::NotWasm(_))));
    }

    #[test]
    fn a_module_that_imports_what_the_adapter_lacks_is_named() {
        let wasm = wat::parse_str(
            r#"(module (import "env" "mystery" (func)) (memory (export "memory") 1) (func (export "_start")))"#,
        )
        .unwrap();
        let error = componentize(&wasm).unwrap_err().to_string();
        assert!(error.contains("env"), "{error}");
    }
}
