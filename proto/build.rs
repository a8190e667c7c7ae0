//! Compiles the files of `proto/` into Rust, without `protoc`.
//!
//! What differs from prost's defaults, and why:
//!
//! - `bytes` fields are [`bytes::Bytes`], so that keys and values are never copied between a frame and the user;
//! - maps are `BTreeMap`, so that iteration and encoding are deterministic;
//! - large messages which a request or reply rarely carries or only passes on are boxed, see [`BOXED`]
//!   and [`BOXED_FIELDS`];
//! - every message is `Eq` and `Hash`, so that whatever holds messages can be compared and hashed, see [`derive_eq`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, error::Error, fs};

use prost_build::{Config, Module};
use protox::prost_reflect::{DescriptorPool, FieldDescriptor, Kind};

/// Messages which are boxed wherever they are a singular field.
///
/// They are large (hundreds of bytes) and would otherwise be moved around, mostly empty, within every request and reply.
const BOXED: [&str; 8] = [
    "kvrpcpb.Context",
    "kvrpcpb.ExecDetails",
    "kvrpcpb.ExecDetailsV2",
    "kvrpcpb.KeyError",
    "kvrpcpb.LockInfo",
    "kvrpcpb.SourceStmt",
    "errorpb.Error",
    "tracepb.TraceContext",
];

/// Fields which are boxed beside those of [`BOXED`] messages: they alone would make rare replies larger than all others, and
/// with them whatever can hold any reply.
const BOXED_FIELDS: [&str; 5] = [
    "coprocessor.Response.range",
    "kvrpcpb.MvccGetByKeyResponse.info",
    "kvrpcpb.MvccGetByStartTsResponse.info",
    "kvrpcpb.SplitRegionResponse.left",
    "kvrpcpb.SplitRegionResponse.right",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = proto_files(Path::new("proto"))?;
    let descriptors = protox::compile(&files, ["proto"])?;
    let pool = DescriptorPool::from_file_descriptor_set(descriptors.clone())?;

    let mut config = Config::new();
    config.bytes(["."]).btree_map(["."]).prost_path("crate::wire");
    for field in pool.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>()) {
        if is_boxed(&field) {
            config.boxed(format!(".{}", field.full_name()));
        }
    }

    let requests = descriptors.file.into_iter().map(|file| (Module::from_protobuf_package_name(file.package()), file));
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    for (module, code) in config.generate(requests.collect())? {
        fs::write(out_dir.join(module.to_file_name_or("_")), derive_eq(&code))?;
    }
    Ok(())
}

/// All `.proto` files below the folder, in a fixed order.
fn proto_files(folder: &Path) -> Result<BTreeSet<PathBuf>, Box<dyn Error>> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.append(&mut proto_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.insert(path);
        }
    }
    Ok(files)
}

fn is_boxed(field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::Message(message) => {
            let is_listed = BOXED.contains(&message.full_name()) || BOXED_FIELDS.contains(&field.full_name());
            is_listed && !field.is_list() && !field.is_map()
        }
        _ => false,
    }
}

/// Makes every generated message and oneof `Eq` and `Hash`.
///
/// prost derives them unless a message holds a list of messages, a map or a float, anywhere below. The first two are no
/// obstacle. A message with floats gets written implementations: equality is prost's, and the hash agrees with it.
fn derive_eq(code: &str) -> String {
    let mut output = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find("#[derive(Clone, ") {
        let (before, item) = rest.split_at(start);
        let (item, after) = item.split_at(end_of_item(item));
        output.push_str(before);
        output.push_str(&item_with_eq(item));
        rest = after;
    }
    output.push_str(rest);
    output
}

/// The length of the generated struct or enum at the start of `code`, closing brace included.
fn end_of_item(code: &str) -> usize {
    let open = code.find(['{', ';']).expect("a derive is followed by an item");
    code[open..].find('}').map_or(code.len(), |close| open + close + 1)
}

fn item_with_eq(item: &str) -> String {
    if item.contains("Eq, Hash, ") {
        return item.to_owned();
    }
    let floats = item.contains(": f64,") || item.contains(": f32,");
    if floats {
        format!("{item}\n{}", eq_of_floats(item))
    } else {
        item.replacen("PartialEq, ", "PartialEq, Eq, Hash, ", 1)
    }
}

/// Adding zero makes one of the two zeros, which are equal and must have the same hash.
fn eq_of_floats(item: &str) -> String {
    let name = item.split("pub struct ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a struct has a name");
    let mut hashed = String::new();
    for field in item.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.strip_suffix(',')) {
        let (field, kind) = field.split_once(": ").expect("a field has a type");
        let value = match kind {
            "f64" | "f32" => format!("(self.{field} + 0.0).to_bits()"),
            _ => format!("self.{field}"),
        };
        hashed.push_str(&format!("        ::core::hash::Hash::hash(&{value}, state);\n"));
    }
    format!(
        "impl ::core::cmp::Eq for {name} {{}}\nimpl ::core::hash::Hash for {name} {{\n    \
         fn hash<H: ::core::hash::Hasher>(&self, state: &mut H) {{\n{hashed}    }}\n}}\n"
    )
}
