//! FileService.

use std::sync::Arc;

use interlock_proto::gateway::v1::{
    DeleteFileRequest, DeleteFileResponse, GetFileRequest, GetFileResponse, ListFilesRequest,
    ListFilesResponse, PutFileRequest, PutFileResponse, file_service_server::FileService,
};
use tonic::{Request, Response, Status, Streaming};

use super::{Front, parts, wire};
use crate::{
    file::{DeleteFile, ListFiles, OpenFile},
    ids::FileName,
    outlet::Answers,
    transfer::{self, of_whom},
};

pub(super) struct Rpc(pub(super) Arc<Front>);

#[tonic::async_trait]
impl FileService for Rpc {
    async fn put_file(
        &self,
        request: Request<Streaming<PutFileRequest>>,
    ) -> Result<Response<PutFileResponse>, Status> {
        let (call, admitted, requests) = parts(request);
        let work = async {
            let told = transfer::put(&self.0, &call, &admitted, requests).await?;
            Ok(told.map(|stored| PutFileResponse {
                file: Some(wire::file(&stored.file)),
                replaced: stored.replaced.is_some(),
            }))
        };
        self.0.answer(&call, work).await
    }

    type GetFileStream = Answers<GetFileResponse>;

    async fn get_file(
        &self,
        request: Request<GetFileRequest>,
    ) -> Result<Response<Self::GetFileStream>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let of = wire::files_of(request.session_id, request.job_id, request.fencing_token)?;
            let open = OpenFile { of, name: FileName::parse(request.name)? };
            transfer::get(&self.0, &call, &admitted, open).await
        };
        self.0.answer(&call, work).await
    }

    async fn list_files(
        &self,
        request: Request<ListFilesRequest>,
    ) -> Result<Response<ListFilesResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let of = wire::files_of(request.session_id, request.job_id, request.fencing_token)?;
            let caller = of_whom(&admitted, &of);
            let list = ListFiles { of, page_size: request.page_size, page_token: request.page_token };
            let told = self.0.ask(&call, &caller, list).await?;
            Ok(told.map(|page| ListFilesResponse {
                files: page.files.iter().map(wire::file).collect(),
                next_page_token: page.next_page_token,
            }))
        };
        self.0.answer(&call, work).await
    }

    async fn delete_file(
        &self,
        request: Request<DeleteFileRequest>,
    ) -> Result<Response<DeleteFileResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let of = wire::files_of(request.session_id, request.job_id, request.fencing_token)?;
            let caller = of_whom(&admitted, &of);
            let delete = DeleteFile { of, name: FileName::parse(request.name)? };
            let told = self.0.run(&call, &caller, delete).await?;
            Ok(told.map(|deleted| {
                let was_there = deleted.is_some();
                if let Some((session, id)) = deleted {
                    transfer::take_away(&self.0, session, id);
                }
                DeleteFileResponse { deleted: was_there }
            }))
        };
        self.0.answer(&call, work).await
    }
}
