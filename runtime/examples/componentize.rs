//! `componentize IN OUT`: makes a component of a preview-1 core module, as the node does when it pulls one. The example
//! components are built with it where the compiler has no `wasm32-wasip2` target.

use std::error::Error;

use wasi_preview1_component_adapter_provider as adapters;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(input), Some(output)) = (arguments.next(), arguments.next()) else {
        return Err("usage: componentize IN OUT".into());
    };
    let module = std::fs::read(input)?;
    let command = wasmparser::Parser::new(0).parse_all(&module).any(|payload| match payload {
        Ok(wasmparser::Payload::ExportSection(exports)) => exports.into_iter().flatten().any(|e| e.name == "_start"),
        _ => false,
    });
    let adapter = if command {
        adapters::WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER
    } else {
        adapters::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER
    };
    let component = wit_component::ComponentEncoder::default()
        .module(&module)?
        .adapter(adapters::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter)?
        .validate(true)
        .encode()?;
    std::fs::write(output, component)?;
    Ok(())
}
