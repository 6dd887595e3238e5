//! One scene on which all policies differ.

use windtunnel_base::content::Extent;
use windtunnel_base::ids::{ClassId, RequestId, TenantId};
use windtunnel_base::time::SimTime;
use windtunnel_engine::request::RequestView;

pub(super) fn request(id: u32, prompt_tokens: u32, prefix: &[Extent]) -> RequestView<'_> {
    RequestView {
        id: RequestId(id),
        sent_at: SimTime::ZERO,
        deadline: None,
        prompt_tokens,
        max_output_tokens: None,
        predicted_output_tokens: None,
        tenant: TenantId(0),
        class: ClassId(0),
        priority: 0,
        session: u64::from(id),
        prefix,
    }
}
