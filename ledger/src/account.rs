//! Money, energy and tokens in double entry. Every posting takes from one account and gives to
//! another, in integers, so that totals equal the sum of postings to the last unit.

use serde::{Deserialize, Serialize};

/// Where money comes from and what it goes to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Account {
    /// The operator's purse, or the grid: where everything comes from.
    Source,
    /// Replicas while they compute prompt tokens only.
    Prefill,
    /// Replicas while they compute output tokens only.
    Decode,
    /// Replicas while they compute both in one step.
    Mixed,
    /// Service at stations.
    Service,
    /// Replicas that are paid for and have nothing to do.
    Idle,
    /// Checking answers.
    Verification,
    /// The gateway: its instances and its stages.
    Gateway,
    /// Tokens, where they are paid for one by one.
    Tokens,
}

impl Account {
    /// All accounts, in the order of reports.
    pub const ALL: [Self; 9] = [
        Self::Source,
        Self::Prefill,
        Self::Decode,
        Self::Mixed,
        Self::Service,
        Self::Idle,
        Self::Verification,
        Self::Gateway,
        Self::Tokens,
    ];

    /// The account as a word, as in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Mixed => "mixed",
            Self::Service => "service",
            Self::Idle => "idle",
            Self::Verification => "verification",
            Self::Gateway => "gateway",
            Self::Tokens => "tokens",
        }
    }
}

/// One currency's accounts: what each received and gave, in the currency's smallest unit.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Accounts {
    #[serde(deserialize_with = "padded")]
    received: [u64; Account::ALL.len()],
    #[serde(deserialize_with = "padded")]
    given: [u64; Account::ALL.len()],
    posted: u64,
}

impl Accounts {
    /// Moves `amount` from one account to another.
    #[inline]
    pub fn post(&mut self, from: Account, to: Account, amount: u64) {
        self.given[from as usize] += amount;
        self.received[to as usize] += amount;
        self.posted += amount;
    }

    /// What an account received, less what it gave; [`Account::Source`] gives only.
    pub fn balance(&self, account: Account) -> i128 {
        i128::from(self.received[account as usize]) - i128::from(self.given[account as usize])
    }

    /// What an account received.
    pub fn received(&self, account: Account) -> u64 {
        self.received[account as usize]
    }

    /// All that left the source.
    pub fn total(&self) -> u64 {
        self.given[Account::Source as usize]
    }

    /// Whether the books balance: balances sum to zero, and both sides equal the postings.
    pub fn balanced(&self) -> bool {
        let sum: i128 = Account::ALL.iter().map(|&a| self.balance(a)).sum();
        let given: u64 = self.given.iter().sum();
        let received: u64 = self.received.iter().sum();
        sum == 0 && given == self.posted && received == self.posted
    }

    /// Adds another set of books.
    pub fn merge(&mut self, other: &Self) {
        for i in 0..Account::ALL.len() {
            self.received[i] += other.received[i];
            self.given[i] += other.given[i];
        }
        self.posted += other.posted;
    }
}

/// Amounts by account; files of versions that knew fewer accounts have none of the later ones.
fn padded<'de, D: serde::Deserializer<'de>>(d: D) -> Result<[u64; Account::ALL.len()], D::Error> {
    let amounts = Vec::<u64>::deserialize(d)?;
    let mut all = [0; Account::ALL.len()];
    if amounts.len() > all.len() {
        let message = format!(
            "{} accounts, of which {} are known",
            amounts.len(),
            all.len()
        );
        return Err(serde::de::Error::custom(message));
    }
    all[..amounts.len()].copy_from_slice(&amounts);
    Ok(all)
}

/// Money (nano-dollars) and energy (micro-joules), and the tokens they paid for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Books {
    /// In nano-dollars.
    pub money: Accounts,
    /// In micro-joules.
    pub energy: Accounts,
    /// Prompt tokens computed, repeated ones after preemption included.
    pub prompt_tokens_computed: u64,
    /// Prompt tokens taken from the prefix cache.
    pub prompt_tokens_cached: u64,
    /// Output tokens generated, those of requests that did not finish included.
    pub output_tokens_generated: u64,
    /// Tokens that static batches had room for, step by step; zero without such batches.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub batch_room: u64,
    /// Of those, tokens that nobody needed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub batch_padding: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Books {
    /// Adds another set of books.
    pub fn merge(&mut self, other: &Self) {
        self.money.merge(&other.money);
        self.energy.merge(&other.energy);
        self.prompt_tokens_computed += other.prompt_tokens_computed;
        self.prompt_tokens_cached += other.prompt_tokens_cached;
        self.output_tokens_generated += other.output_tokens_generated;
        self.batch_room += other.batch_room;
        self.batch_padding += other.batch_padding;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_posting_has_two_sides() {
        let mut a = Accounts::default();
        a.post(Account::Source, Account::Decode, 70);
        a.post(Account::Source, Account::Idle, 30);
        assert_eq!(
            (
                a.total(),
                a.balance(Account::Source),
                a.balance(Account::Decode)
            ),
            (100, -100, 70)
        );
        assert!(a.balanced());
        a.received[Account::Idle as usize] += 1;
        assert!(!a.balanced(), "a forged entry must show");
    }
}
