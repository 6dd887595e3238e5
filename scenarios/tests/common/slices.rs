//! Traces of a few rows in every format, and how to prepare them.

#![allow(dead_code, reason = "each test file uses its part of it")]

use super::{Sent, scenario};
use std::path::Path;
use windtunnel_scenarios::workload::{Traffic, TrafficError, prepare};

pub(crate) const MOONCAKE: &str = "\
{\"timestamp\": 0, \"input_length\": 1100, \"output_length\": 5, \"hash_ids\": [0, 1, 2]}
{\"timestamp\": 3000, \"input_length\": 1500, \"output_length\": 6, \"hash_ids\": [0, 1, 7]}
{\"timestamp\": 3000, \"input_length\": 600, \"output_length\": 7, \"hash_ids\": [0, 9]}
{\"timestamp\": 6000, \"input_length\": 1600, \"output_length\": 8, \"hash_ids\": [0, 1, 7, 8]}
";
pub(crate) const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n\
    2023-11-16 23:59:59.5000000,374,44\r\n2023-11-17 00:00:01.2500000,396,109\r\n";
pub(crate) const BURSTGPT: &str = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
    5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,100,0,100,API log\n\
    118,GPT-4,1087,230,1317,API log\n";
pub(crate) const VTC: &str = "req_id,adapter,prompt_len,output_len,req_time_s\n0,13,13,199,0.0\n\
    1,2,36,137,0.25\n2,13,456,0,0.5\n";
pub(crate) const NATIVE: &str = "version,request,session,turn,tenant_name,class_name,end,sent_ns,\
    prompt_tokens,output_tokens,good\n\
    1,0,7,0,acme,default,finished,1500,10,20,true\n1,1,7,1,acme,default,abandoned,2500,30,3,false\n";
pub(crate) const RATES: &str = "client,window_start_s,rate_rps,iat_cv,family,shape,scale\n\
    0,0,2.0,1,Gamma,1.0,0.5\n0,600,0,0,,0,0\n0,1200,4.0,3,Gamma,0.11,2.2\n\
    1,0,1.0,2,Weibull,0.5,0.5\n1,600,1.0,2,Weibull,0.5,0.5\n";
pub(crate) const PDFS: &str = "{\"client\":0,\"windows\":{\"0\":{\"input_tokens\":\"{10: 0.5, 20: 0.5}\",\
    \"output_tokens\":\"{7: 1.0}\",\"reason_ratio\":\"{0.0: 0.5, 0.5: 0.5}\"}}}\n";
pub(crate) const AGENTS: &str = "{\"id\":\"a\",\"block_size\":64,\"tool_tokens\":100,\"system_tokens\":30,\
    \"requests\":[{\"t\":0,\"type\":\"n\",\"model\":\"m\",\"in\":300,\"out\":10,\
    \"hash_ids\":[1,2,3,4],\"think_time\":0,\"api_time\":2},\
    {\"t\":5,\"type\":\"subagent\",\"tool_tokens\":64,\"system_tokens\":0,\"requests\":[\
    {\"t\":0,\"type\":\"n\",\"model\":\"s\",\"in\":130,\"out\":4,\"hash_ids\":[50,51],\"api_time\":1},\
    {\"t\":4,\"type\":\"n\",\"model\":\"s\",\"in\":200,\"out\":4,\"hash_ids\":[50,51,52],\
    \"think_time\":3,\"api_time\":1}]},\
    {\"t\":9,\"type\":\"s\",\"model\":\"m\",\"in\":400,\"out\":0,\"hash_ids\":[1,2,3,4,5,6],\
    \"think_time\":7,\"api_time\":2}]}\n\
    {\"id\":\"b\",\"block_size\":64,\"tool_tokens\":100,\"system_tokens\":30,\"requests\":[\
    {\"t\":0,\"type\":\"n\",\"model\":\"m\",\"in\":200,\"out\":10,\"hash_ids\":[1,2,3]}]}\n";

pub(crate) fn prepare_in(dir: &Path, text: &str, skip: bool) -> Result<Traffic, TrafficError> {
    prepare(&scenario(text), Some(dir), None, skip)
}

/// Writes `content` as `file` and prepares `[traffic.trace]` of this format over it.
pub(crate) fn try_trace(
    format: &str,
    content: &[u8],
    more: &str,
    skip: bool,
) -> Result<Traffic, TrafficError> {
    let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    let put = |name: &str, content: &[u8]| {
        std::fs::write(dir.path().join(name), content).unwrap_or_else(|e| panic!("{e}"));
    };
    put("trace", content);
    put("tokens", PDFS.as_bytes());
    let text = format!("[traffic.trace]\nformat = \"{format}\"\nfile = \"trace\"\n{more}");
    prepare_in(dir.path(), &text, skip)
}

pub(crate) fn trace(format: &str, content: &str, more: &str) -> Traffic {
    try_trace(format, content.as_bytes(), more, false).unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn tokens(sent: &[Sent]) -> Vec<(u32, u32)> {
    sent.iter()
        .map(|(a, _)| (a.prompt_tokens, a.truth.output_tokens))
        .collect()
}

pub(crate) fn nanos(sent: &[Sent]) -> Vec<u64> {
    sent.iter().map(|(a, _)| a.at.as_nanos()).collect()
}
