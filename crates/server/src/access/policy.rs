//! The decision: may a request with these credentials do what needs that? Pure.

use super::known_tokens::KnownTokens;
use super::rights::{Need, Right, Rights};
use super::token::{Credentials, Token};
use crate::status::{Problem, Status};

/// Why a request is refused, as logs and metrics have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalReason {
    /// It brings no token and needs one.
    NoToken = 0,
    /// It brings one that is not known, or something that is none.
    BadToken = 1,
    /// Its token does not have the right.
    MissingRight = 2,
    /// Nobody may delete.
    AppendOnly = 3,
}

impl RefusalReason {
    /// All of them, in their order.
    pub(crate) const ALL: [RefusalReason; 4] =
        [RefusalReason::NoToken, RefusalReason::BadToken, RefusalReason::MissingRight, RefusalReason::AppendOnly];

    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            RefusalReason::NoToken => "no_token",
            RefusalReason::BadToken => "bad_token",
            RefusalReason::MissingRight => "missing_right",
            RefusalReason::AppendOnly => "append_only",
        }
    }
}

/// A request that is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Why.
    pub reason: RefusalReason,
    /// The name of the token that it brought, if that is known.
    pub token: Option<String>,
    need: Need,
}

/// Who may do what.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `None`: there are none, and what requests bring is not looked at.
    tokens: Option<KnownTokens>,
    anonymous: Rights,
    append_only: bool,
}

impl Policy {
    /// `tokens`: `None` where none are configured. `anonymous`: what may be done without a token; `None`: everything where no tokens are
    /// configured, nothing where they are. `append_only`: nobody may delete.
    #[must_use]
    pub fn new(tokens: Option<Vec<Token>>, anonymous: Option<Rights>, append_only: bool) -> Policy {
        let anonymous = anonymous.unwrap_or(if tokens.is_some() { Rights::NONE } else { Rights::ALL });
        Policy { tokens: tokens.map(KnownTokens::from_iter), anonymous, append_only }
    }

    /// Whether who brings these credentials may do what needs that.
    ///
    /// # Errors
    ///
    /// [`Refusal`]: it may not.
    pub fn check(&self, credentials: &Credentials, need: Need) -> Result<(), Refusal> {
        if need == Need::Nothing {
            return Ok(());
        }
        let refused = |reason, token: Option<&Token>| {
            Err(Refusal { reason, token: token.map(|token| token.name().to_owned()), need })
        };
        let token = match (&self.tokens, credentials) {
            (None, _) | (Some(_), Credentials::Absent) => None,
            (Some(_), Credentials::Unusable) => return refused(RefusalReason::BadToken, None),
            (Some(tokens), Credentials::Token(digest)) => match tokens.find(digest) {
                // Also where no token is needed: who brings one wants to know that it is no good.
                None => return refused(RefusalReason::BadToken, None),
                token => token,
            },
        };
        let rights = self.anonymous.and(token.map_or(Rights::NONE, |token| token.rights));
        if !rights.meet(need) {
            // Without tokens there is none that would help.
            let helps = token.is_none() && self.tokens.is_some();
            return refused(if helps { RefusalReason::NoToken } else { RefusalReason::MissingRight }, token);
        }
        if self.append_only && need == Need::One(Right::Delete) {
            return refused(RefusalReason::AppendOnly, token);
        }
        Ok(())
    }
}

impl Policy {
    /// Whether blocks are for those only who bring a token.
    pub(crate) fn keeps_blocks_private(&self) -> bool {
        !self.anonymous.meet(Need::One(Right::Read))
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let need = match refusal.need {
            Need::One(right) => format!("the right \"{}\"", right.name()),
            Need::Any | Need::Nothing => "a right".to_owned(),
        };
        let challenged =
            |status, detail: String, challenge| Problem { challenge: Some(challenge), ..Problem::new(status, detail) };
        match refusal.reason {
            RefusalReason::NoToken => challenged(
                Status::UNAUTHORIZED,
                format!("this needs {need}: send a token that has it, as \"Authorization: Bearer …\""),
                "Bearer realm=\"buddy-blocks\"",
            ),
            // RFC 6750 section 3.1
            RefusalReason::BadToken => challenged(
                Status::UNAUTHORIZED,
                "Authorization does not hold a token that is known here".to_owned(),
                "Bearer realm=\"buddy-blocks\", error=\"invalid_token\"",
            ),
            RefusalReason::MissingRight => {
                let detail = format!("this needs {need}, which was not given to you");
                match refusal.token {
                    Some(_) => challenged(
                        Status::FORBIDDEN,
                        detail,
                        "Bearer realm=\"buddy-blocks\", error=\"insufficient_scope\"",
                    ),
                    // There are no tokens, so another would not help.
                    None => Problem::new(Status::FORBIDDEN, detail),
                }
            }
            RefusalReason::AppendOnly => {
                Problem::new(Status::FORBIDDEN, "blocks are not deleted here: the server is append-only")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::token::TokenDigest;
    use super::*;

    fn rights(text: &str) -> Rights {
        text.parse().unwrap()
    }

    fn token(name: &str, rights_text: &str) -> Token {
        Token::new(name, TokenDigest::of(name.as_bytes()), rights(rights_text)).unwrap()
    }

    fn bearer(name: &str) -> Credentials {
        Credentials::Token(TokenDigest::of(name.as_bytes()))
    }

    fn reason(policy: &Policy, credentials: &Credentials, need: Need) -> Option<RefusalReason> {
        policy.check(credentials, need).err().map(|refusal| refusal.reason)
    }

    const NEEDS: [Need; 6] = [
        Need::Nothing,
        Need::Any,
        Need::One(Right::Read),
        Need::One(Right::Write),
        Need::One(Right::Delete),
        Need::One(Right::Admin),
    ];

    #[test]
    fn every_need_with_every_right_and_every_kind_of_credentials() {
        for bits in 0..16_u8 {
            let granted: Rights = Right::ALL
                .into_iter()
                .enumerate()
                .filter(|(bit, _)| bits >> bit & 1 == 1)
                .map(|(_, right)| right)
                .collect();
            let mine = Token::new("mine", TokenDigest::of(b"mine"), granted).unwrap();
            let policy = Policy::new(Some(vec![token("other", "read,write,delete,admin"), mine]), None, false);
            for need in NEEDS {
                let allowed = granted.meet(need);
                let missing = (!allowed).then_some(RefusalReason::MissingRight);
                assert_eq!(reason(&policy, &bearer("mine"), need), missing, "{granted} {need:?}");
                let needed = need != Need::Nothing;
                assert_eq!(reason(&policy, &Credentials::Absent, need), needed.then_some(RefusalReason::NoToken));
                for bad in [bearer("nobody"), Credentials::Unusable] {
                    assert_eq!(reason(&policy, &bad, need), needed.then_some(RefusalReason::BadToken));
                }
            }
        }
    }

    #[test]
    fn without_tokens_everybody_may_do_what_anonymous_may() {
        let open = Policy::new(None, None, false);
        let reading = Policy::new(None, Some(rights("read")), false);
        for credentials in [Credentials::Absent, Credentials::Unusable, bearer("x")] {
            assert!(NEEDS.into_iter().all(|need| reason(&open, &credentials, need).is_none()));
            assert_eq!(reason(&reading, &credentials, Need::One(Right::Read)), None);
            let refused = reason(&reading, &credentials, Need::One(Right::Write));
            assert_eq!(refused, Some(RefusalReason::MissingRight));
        }
    }

    #[test]
    fn anonymous_rights_add_to_those_of_tokens_but_do_not_make_up_for_a_bad_one() {
        let policy = Policy::new(Some(vec![token("writer", "write")]), Some(rights("read")), false);
        let (read, write) = (Need::One(Right::Read), Need::One(Right::Write));
        assert_eq!(reason(&policy, &Credentials::Absent, read), None);
        assert_eq!(reason(&policy, &Credentials::Absent, write), Some(RefusalReason::NoToken));
        assert_eq!((reason(&policy, &bearer("writer"), read), reason(&policy, &bearer("writer"), write)), (None, None));
        assert_eq!(reason(&policy, &bearer("gone"), read), Some(RefusalReason::BadToken));
        let empty = Policy::new(Some(Vec::new()), None, false);
        assert_eq!(
            reason(&empty, &Credentials::Absent, read),
            Some(RefusalReason::NoToken),
            "no tokens is not no file"
        );
    }

    #[test]
    fn nobody_deletes_where_blocks_are_only_added() {
        let tokens = vec![token("all", "read,write,delete,admin"), token("reader", "read")];
        let policy = Policy::new(Some(tokens), None, true);
        let delete = Need::One(Right::Delete);
        assert_eq!(reason(&policy, &bearer("all"), delete), Some(RefusalReason::AppendOnly));
        assert_eq!(reason(&policy, &bearer("reader"), delete), Some(RefusalReason::MissingRight));
        assert_eq!(reason(&policy, &Credentials::Absent, delete), Some(RefusalReason::NoToken));
        assert_eq!(reason(&policy, &bearer("all"), Need::One(Right::Write)), None);
        let open = Policy::new(None, None, true);
        assert_eq!(reason(&open, &Credentials::Absent, delete), Some(RefusalReason::AppendOnly));
    }

    #[test]
    fn refusals_name_the_token_and_the_right() {
        let policy = Policy::new(Some(vec![token("reader", "read")]), None, false);
        let refusal = policy.check(&bearer("reader"), Need::One(Right::Delete)).unwrap_err();
        assert_eq!(refusal.token.as_deref(), Some("reader"));
        let problem = Problem::from(refusal);
        let insufficient = Some("Bearer realm=\"buddy-blocks\", error=\"insufficient_scope\"");
        assert_eq!((problem.status, problem.challenge), (Status::FORBIDDEN, insufficient));
        assert!(problem.detail.contains("\"delete\""), "{}", problem.detail);
        let problem = Problem::from(policy.check(&Credentials::Absent, Need::Any).unwrap_err());
        assert_eq!((problem.status, problem.challenge), (Status::UNAUTHORIZED, Some("Bearer realm=\"buddy-blocks\"")));
        // Where no token would help, none is asked for.
        let open = Policy::new(None, Some(rights("read")), false);
        let problem = Problem::from(open.check(&bearer("reader"), Need::One(Right::Write)).unwrap_err());
        assert_eq!((problem.status, problem.challenge), (Status::FORBIDDEN, None));
        let append_only = Policy::new(Some(vec![token("all", "read,write,delete,admin")]), None, true);
        let problem = Problem::from(append_only.check(&bearer("all"), Need::One(Right::Delete)).unwrap_err());
        assert_eq!((problem.status, problem.challenge), (Status::FORBIDDEN, None));
    }
}
