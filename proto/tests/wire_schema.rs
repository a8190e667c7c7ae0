//! Compares our `.proto` files with `wire_schema.tsv`, a table of what goes over the wire which was taken from the
//! protocol's owners and not from our files: a wrong number, type or name on either side, a missing field, or one too
//! many fails here, before a server misreads it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use protox::prost_reflect::prost_types::{EnumValueOptions, FieldOptions, FileDescriptorSet, MethodOptions};
use protox::prost_reflect::{
    DescriptorPool, EnumDescriptor, EnumValueDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor,
};

const TABLE: &str = include_str!("wire_schema.tsv");

#[test]
fn our_protocol_is_the_wire_protocol() {
    let table: BTreeSet<String> = rows_of_table().collect();
    let ours: BTreeSet<String> = rows_of(&compiled()).into_iter().collect();
    let missing: Vec<_> = table.difference(&ours).collect();
    let extra: Vec<_> = ours.difference(&table).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing or different: {missing:#?}\nnot in the table: {extra:#?}");
}

#[test]
fn the_table_names_nothing_twice() {
    let rows = rows_of_table().count();
    let names: BTreeSet<_> =
        rows_of_table().map(|row| row.split('\t').take(3).collect::<Vec<_>>().join("\t")).collect();
    assert_eq!(names.len(), rows);
}

/// Rows after the comments and the header.
fn rows_of_table() -> impl Iterator<Item = String> {
    TABLE.lines().filter(|line| !line.starts_with('#')).skip(1).map(str::to_owned)
}

fn compiled() -> DescriptorPool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let descriptors: FileDescriptorSet = protox::compile(proto_files(&root), [&root]).unwrap();
    DescriptorPool::from_file_descriptor_set(descriptors).unwrap()
}

fn proto_files(folder: &Path) -> Vec<PathBuf> {
    let paths = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { proto_files(&path) } else { vec![path] }).collect()
}

fn rows_of(pool: &DescriptorPool) -> Vec<String> {
    let messages = pool.all_messages().filter(|message| !message.is_map_entry());
    let messages = messages.flat_map(|message| rows_of_message(&message));
    let enums = pool.all_enums().flat_map(|enumeration| rows_of_enum(&enumeration));
    let methods = pool.services().flat_map(|service| rows_of_service(&service));
    messages.chain(enums).chain(methods).collect()
}

fn rows_of_message(message: &MessageDescriptor) -> Vec<String> {
    let name = message.full_name();
    if message.fields().len() == 0 {
        return vec![format!("message\t{name}\t-\t-\t-\t-\t-\t-")];
    }
    message.fields().map(|field| format!("field\t{name}\t{}", cells_of_field(&field))).collect()
}

fn cells_of_field(field: &FieldDescriptor) -> String {
    let proto = field.field_descriptor_proto();
    let explicit = proto.proto3_optional();
    let label = match field {
        field if field.is_map() => "map",
        field if field.is_packed() => "packed",
        field if field.is_list() => "repeated",
        _ if explicit => "explicit",
        _ => "optional",
    };
    let oneof = field.containing_oneof().filter(|_| !explicit);
    let oneof = oneof.as_ref().map_or("-", |oneof| oneof.name());
    let deprecated = mark(proto.options.as_ref().is_some_and(FieldOptions::deprecated));
    format!("{}\t{}\t{}\t{label}\t{oneof}\t{deprecated}", field.name(), field.number(), type_of(&field.kind()))
}

fn type_of(kind: &Kind) -> String {
    match kind {
        Kind::Message(entry) if entry.is_map_entry() => {
            let (key, value) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
            format!("map<{},{}>", type_of(&key), type_of(&value))
        }
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(enumeration) => enumeration.full_name().to_owned(),
        scalar => format!("{scalar:?}"),
    }
}

fn rows_of_enum(enumeration: &EnumDescriptor) -> Vec<String> {
    let row = |value: EnumValueDescriptor| {
        let deprecated = value.enum_value_descriptor_proto().options.as_ref().is_some_and(EnumValueOptions::deprecated);
        let (name, number, deprecated) = (value.name(), value.number(), mark(deprecated));
        format!("enum\t{}\t{name}\t{number}\t-\t-\t-\t{deprecated}", enumeration.full_name())
    };
    enumeration.values().map(row).collect()
}

fn rows_of_service(service: &ServiceDescriptor) -> Vec<String> {
    service.methods().map(|method| format!("method\t{}\t{}", service.full_name(), cells_of_method(&method))).collect()
}

fn cells_of_method(method: &MethodDescriptor) -> String {
    let side = |streaming: bool, message: MessageDescriptor| {
        format!("{}{}", if streaming { "stream " } else { "" }, message.full_name())
    };
    let request = side(method.is_client_streaming(), method.input());
    let response = side(method.is_server_streaming(), method.output());
    let deprecated = method.method_descriptor_proto().options.as_ref().is_some_and(MethodOptions::deprecated);
    format!("{}\t-\t{request} -> {response}\t-\t-\t{}", method.name(), mark(deprecated))
}

fn mark(deprecated: bool) -> &'static str {
    if deprecated { "deprecated" } else { "-" }
}
