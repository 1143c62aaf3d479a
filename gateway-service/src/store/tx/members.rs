//! Clients and passwords: the reads that their verbs rest on, and the writes that they plan.

use super::Tx;
use crate::{
    client::{Client, ClientRole},
    ids::SessionId,
    password::SessionPassword,
    policy::{Act, Ask, Permit},
    request::Request,
    session::Session,
    store::{
        Stop,
        rows::Change,
        view::{Found, broken},
    },
};

impl Tx<'_> {
    /// A session that the caller knows the password of, what it becomes there, and the permission to do so.
    ///
    /// # Errors
    /// `INVALID_CREDENTIALS`, where there is no such session or the password is another one by now.
    pub fn may_join(&mut self, id: &SessionId, version: u64) -> Result<(Session, ClientRole, Permit), Stop> {
        self.view.concern(id.as_str());
        let (session, password) = (self.rows().session(id)?, self.rows().password(id)?);
        let ask = Ask::Join { id, session: session.as_ref(), password: password.as_ref(), version };
        let permit = self.view.decide(&ask)?;
        let both = session.zip(password);
        let (session, password) = both.ok_or_else(|| broken("a permit for a session that does not exist"))?;
        Ok((session, password.joiners, permit))
    }

    /// All clients of a session, oldest first.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub fn clients_of(&mut self, permit: &Permit, session: &SessionId) -> Result<Vec<Client>, Stop> {
        assert!(permit.covers_session(session), "clients without a permit");
        self.rows().clients_of(session)
    }

    /// Adds a client that joined, and the first answer to this call. The rest of the call is its own.
    pub fn add_client(&mut self, permit: &Permit, client: Client, request: Request) {
        assert!(permit.covers_session(&client.session), "a client without a permit");
        let now = self.now();
        self.view.act_as(&client);
        self.change(Change::AddClient(client));
        self.change(Change::PutRequest(request, now));
    }

    /// A client goes.
    pub fn drop_client(&mut self, permit: &Permit, client: &Client) {
        assert!(permit.covers_session(&client.session), "a client without a permit");
        self.change(Change::DropClient(client.clone()));
    }

    /// The client whose cookie came along, while its session lives; none where it is good no longer.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn present(&mut self) -> Result<Option<(Client, Permit)>, Stop> {
        let Some(cookie) = &self.caller().cookie else { return Ok(None) };
        let client = self.rows().client(&cookie.hash)?.filter(|client| client.session == cookie.session);
        let Some(client) = client.filter(|client| !client.is_idle(self.now(), self.limits())) else {
            return Ok(None);
        };
        let session = self.rows().session(&client.session)?;
        let (id, session) = (&client.session, session.as_ref());
        let ask = Ask::Session { act: Act::Ack, id, session, client: Some(&client) };
        Ok(self.view.decide(&ask).ok().map(|permit| (client, permit)))
    }

    /// A client was seen. No row is owed.
    pub fn set_seen(&mut self, permit: &Permit, client: &Client) {
        assert!(permit.covers_session(&client.session), "a client without a permit");
        let now = self.now();
        self.changes.push(Change::SetSeen { client: client.id.clone(), from: client.seen_at, to: now });
    }

    /// The password that clients join a session with.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub fn password(&mut self, found: &Found) -> Result<Option<SessionPassword>, Stop> {
        self.rows().password(&found.session.id)
    }

    /// Another password.
    pub fn set_password(&mut self, permit: &Permit, before: Option<SessionPassword>, after: SessionPassword) {
        assert!(permit.covers_session(&after.session), "a password without a permit");
        self.change(Change::SetPassword(before, after));
    }

    /// Keeps the first answer to a call about a session.
    pub fn keep_answer(&mut self, permit: &Permit, session: &Session, request: Request) {
        assert!(permit.covers_session(&session.id), "an answer without a permit");
        let now = self.now();
        self.change(Change::PutRequest(request, now));
    }
}
