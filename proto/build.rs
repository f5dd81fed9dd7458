//! Compiles the contracts without a system `protoc`: protox parses, tonic-prost-build generates.

use prost::Message as _;
use protox::prost_reflect::{DynamicMessage, ReflectMessage as _, Value};
use std::{env, fs, path::PathBuf};

const OURS: &str = "livemerge/v1";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut files: Vec<PathBuf> = fs::read_dir(OURS)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|e| e == "proto"));
    files.sort();
    println!("cargo:rerun-if-changed={OURS}");
    println!("cargo:rerun-if-changed=buf/validate");

    let mut compiler = protox::Compiler::new(["."])?;
    compiler
        .include_source_info(true)
        .include_imports(true)
        .open_files(&files)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("livemerge.v1.bin"), descriptors(&compiler)?)?;

    // Rules are data: nothing is generated of the messages that hold them.
    let mut generated = compiler.file_descriptor_set();
    generated
        .file
        .retain(|file| file.package() != "buf.validate");
    // The names are what a request's rules are found by.
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure().compile_fds_with_config(generated, config)?;
    Ok(())
}

/// All files, with the rules, which are extensions of options. Of our own the source info stays in: the
/// comments become docs, and reflection clients can show them.
fn descriptors(compiler: &protox::Compiler) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut files = Vec::new();
    for file in compiler.descriptor_pool().files() {
        let kind = prost_types::FileDescriptorProto::default().descriptor();
        let mut message = DynamicMessage::decode(kind, file.encode_to_vec().as_slice())?;
        if !file.name().starts_with(OURS) {
            message.clear_field_by_name("source_code_info");
        }
        files.push(Value::Message(message));
    }
    let mut set = prost_types::FileDescriptorSet::default().transcode_to_dynamic();
    set.set_field_by_name("file", Value::List(files));
    Ok(set.encode_to_vec())
}
