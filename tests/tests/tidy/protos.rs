//! Rules over the descriptor set: every RPC says what it does.

use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

use crate::{Fault, holds, sees};

/// Numbers of fields in `google.protobuf.FileDescriptorProto` and `ServiceDescriptorProto`, from
/// which the places of comments are made.
const SERVICE: i32 = 6;
const METHOD: i32 = 2;

/// Every service and every RPC of ours has a comment before it.
fn documented(set: &FileDescriptorSet) -> Vec<Fault> {
    let ours = set.file.iter().filter(|f| f.package().starts_with("interlock."));
    let mut faults = Vec::new();
    for file in ours {
        for (s, service) in (0..).zip(&file.service) {
            if !has_comment(file, &[SERVICE, s]) {
                faults.push(format!("{}: service {} says nothing", file.name(), service.name()));
            }
            for (m, method) in (0..).zip(&service.method) {
                if !has_comment(file, &[SERVICE, s, METHOD, m]) {
                    let name = format!("{}.{}", service.name(), method.name());
                    faults.push(format!("{}: rpc {name} says nothing", file.name()));
                }
            }
        }
    }
    faults
}

fn has_comment(file: &FileDescriptorProto, place: &[i32]) -> bool {
    let places = file.source_code_info.iter().flat_map(|info| &info.location);
    places.filter(|l| l.path == place).any(|l| !l.leading_comments().trim().is_empty())
}

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(interlock_proto::DESCRIPTORS).expect("the build made it")
}

#[test]
fn every_rpc_is_documented() {
    holds(&documented(&descriptors()));
}

#[test]
fn documented_sees_a_silent_rpc() {
    let mut set = descriptors();
    let file = set.file.iter_mut().find(|f| f.name().ends_with("gateway/v1/session.proto")).expect("ours");
    let info = file.source_code_info.as_mut().expect("kept by the build");
    let place = info.location.iter_mut().find(|l| l.path == [SERVICE, 0, METHOD, 0]).expect("it has one");
    place.leading_comments = Some(" ".to_owned());
    sees(&documented(&set), &["rpc SessionService.CreateSession says nothing"]);
}
