//! gRPC server reflection, v1 and v1alpha, of exactly what is served.
//!
//! The descriptors keep our method options, so that `describe` shows the policy of an RPC, and
//! `google.rpc` details can be read by generic clients.

use interlock_proto::DESCRIPTORS;
use tonic_reflection::server::{Builder, Error};

use crate::serve::Services;

/// Largest request of a reflection client, bytes.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// Adds both versions of reflection, which tell of all services added before and of themselves.
///
/// # Errors
/// A descriptor set that cannot be read: never one of those that the build made.
pub fn add(services: Services) -> Result<Services, Error> {
    let v1 = builder(&services).build_v1()?.max_decoding_message_size(REQUEST_BYTES_MAX);
    let v1alpha = builder(&services).build_v1alpha()?.max_decoding_message_size(REQUEST_BYTES_MAX);
    Ok(services.with(v1).with(v1alpha))
}

fn builder(services: &Services) -> Builder<'static> {
    let sets = [
        DESCRIPTORS,
        tonic_types::pb::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let builder = sets.into_iter().fold(Builder::configure().include_reflection_service(false), |b, set| {
        b.register_encoded_file_descriptor_set(set)
    });
    let own = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];
    let names = services.names().iter().copied().chain(own);
    names.fold(builder, Builder::with_service_name)
}
