//! Recorded JSON as protocol buffer messages.
//!
//! Fields have their proto names, enums are names, bytes lower-case hex. Timestamps are strings relative to the sequence's
//! base: `+L`, `+Mms`, `+Mms+L`; `max` is the largest one. An encoded key with a timestamp is written `HEX|~TIMESTAMP`.

use std::path::Path;

use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value as Field};
use serde_json::Value;
use tikv_core::timestamp::Timestamp;

/// Base of all timestamps of a sequence.
const BASE: Timestamp = Timestamp::compose(1_700_000_000_000, 0);

/// The messages of the protocol, by their descriptions.
#[derive(Debug)]
pub(super) struct Messages {
    pool: DescriptorPool,
}

impl Messages {
    pub(super) fn new() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/proto");
        let files = protox::compile(["tikvpb.proto"], [folder]).expect("the protocol compiles");
        Messages { pool: DescriptorPool::from_file_descriptor_set(files).expect("the protocol is complete") }
    }

    /// Request and response of an RPC.
    pub(super) fn of_rpc(&self, rpc: &str) -> (MessageDescriptor, MessageDescriptor) {
        let service = self.pool.get_service_by_name("tikvpb.Tikv").expect("the service is known");
        let method = service.methods().find(|method| method.name() == rpc).expect("the RPC is known");
        (method.input(), method.output())
    }

    pub(super) fn encode(&self, message: &MessageDescriptor, json: &Value) -> Vec<u8> {
        self.to_message(message, json).encode_to_vec()
    }

    pub(super) fn decode(&self, message: &MessageDescriptor, bytes: &[u8]) -> DynamicMessage {
        DynamicMessage::decode(message.clone(), bytes).expect("answers are well formed")
    }

    pub(super) fn to_message(&self, descriptor: &MessageDescriptor, json: &Value) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        for (name, json) in json.as_object().into_iter().flatten() {
            let field = descriptor.get_field_by_name(name);
            let field = field.unwrap_or_else(|| panic!("unknown field {} of {}", name, descriptor.full_name()));
            let value = match json.as_array() {
                Some(items) if field.is_list() => {
                    Field::List(items.iter().map(|item| self.value(&field, item)).collect())
                }
                _ => self.value(&field, json),
            };
            message.set_field(&field, value);
        }
        message
    }

    fn value(&self, field: &FieldDescriptor, json: &Value) -> Field {
        match field.kind() {
            Kind::Message(message) => Field::Message(self.to_message(&message, json)),
            Kind::Enum(names) => {
                let name = json.as_str().unwrap_or_default();
                let value = names.get_value_by_name(name).unwrap_or_else(|| panic!("unknown name {name}"));
                Field::EnumNumber(value.number())
            }
            Kind::Bytes => Field::Bytes(bytes(json.as_str().unwrap_or_default()).into()),
            Kind::String => Field::String(json.as_str().unwrap_or_default().to_owned()),
            Kind::Bool => Field::Bool(json.as_bool().unwrap_or_default()),
            Kind::Uint64 => Field::U64(json.as_u64().unwrap_or_else(|| number(json.as_str().unwrap_or_default()))),
            Kind::Uint32 => Field::U32(u32::try_from(json.as_u64().unwrap_or_default()).expect("32 bits")),
            Kind::Int64 => Field::I64(json.as_i64().unwrap_or_default()),
            kind => panic!("a field of kind {kind:?} is not expected"),
        }
    }
}

fn bytes(text: &str) -> Vec<u8> {
    let (hex, ts) = text.split_once("|~").map_or((text, None), |(hex, ts)| (hex, Some(ts)));
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("bytes are hexadecimal");
    let mut bytes: Vec<u8> = (0..hex.len()).step_by(2).map(digits).collect();
    if let Some(ts) = ts {
        bytes.extend_from_slice(&(!number(ts)).to_be_bytes());
    }
    bytes
}

/// A timestamp, or a number too large for JSON.
fn number(text: &str) -> u64 {
    let parse = |digits: &str| digits.parse::<u64>().unwrap_or_else(|_| panic!("not a number: {text}"));
    let Some(offset) = text.strip_prefix('+') else {
        return if text == "max" { u64::MAX } else { parse(text) };
    };
    let (ms, logical) = match offset.split_once("ms") {
        Some((ms, "")) => (parse(ms), 0),
        Some((ms, logical)) => (parse(ms), parse(logical.trim_start_matches('+'))),
        None => (0, parse(offset)),
    };
    Timestamp::compose(BASE.physical_ms() + ms, logical).version()
}
