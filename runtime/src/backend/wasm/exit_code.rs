//! Exit codes of preview-1 modules: the standard adapter tells WASI 0.2 only success or failure, so `proc_exit` is given an
//! adapter of its own, which calls `exit-with-code`.

use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{
    CodeSection, EntityType, ExportKind, ExportSection, Function, FunctionSection, ImportSection, Module, TypeSection,
    ValType,
};
use wasmparser::{Import, Imports, Parser};
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// What `proc_exit` is imported from afterwards.
pub(super) const MODULE: &str = "wherry_exit";

const PREVIEW_1: &str = "wasi_snapshot_preview1";
const PROC_EXIT: &str = "proc_exit";

/// The interface as the WASI of the standard adapter has it.
const WIT: &str = "
    package wasi:cli@0.2.12;
    interface exit {
        exit: func(status: result);
        exit-with-code: func(status-code: u8);
    }
    world exits { import exit; }
";

/// The module with its `proc_exit` imported from [`MODULE`]; `None` if it imports none.
pub(super) fn redirect(module: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let mut redirect = Redirect { found: false };
    let mut renamed = Module::new();
    redirect.parse_core_module(&mut renamed, Parser::new(0), module).map_err(|e| e.to_string())?;
    Ok(redirect.found.then(|| renamed.finish()))
}

struct Redirect {
    found: bool,
}

impl Reencode for Redirect {
    type Error = std::convert::Infallible;

    fn parse_imports(&mut self, section: &mut ImportSection, imports: Imports<'_>) -> Result<(), Error<Self::Error>> {
        match imports {
            Imports::Single(at, import) if import.module == PREVIEW_1 && import.name == PROC_EXIT => {
                self.found = true;
                utils::parse_imports(self, section, Imports::Single(at, Import { module: MODULE, ..import }))
            }
            other => utils::parse_imports(self, section, other),
        }
    }
}

/// The adapter: `proc_exit(code)` is `exit-with-code(code & 255)`, which does not return.
pub(super) fn adapter() -> Result<Vec<u8>, String> {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32], []);
    let mut imports = ImportSection::new();
    imports.import("wasi:cli/exit@0.2.12", "exit-with-code", EntityType::Function(0));
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut exports = ExportSection::new();
    exports.export(PROC_EXIT, ExportKind::Func, 1);
    let mut body = Function::new([]);
    body.instructions().local_get(0).i32_const(255).i32_and().call(0).unreachable().end();
    let mut code = CodeSection::new();
    code.function(&body);
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions).section(&exports).section(&code);
    let mut bytes = module.finish();

    let mut resolve = Resolve::default();
    let package = resolve.push_source("exit.wit", WIT).map_err(|e| e.to_string())?;
    let world = resolve.select_world(&[package], Some("exits")).map_err(|e| e.to_string())?;
    embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8).map_err(|e| e.to_string())?;
    Ok(bytes)
}
