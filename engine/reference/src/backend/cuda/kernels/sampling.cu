// From logits to tokens, with the figures that risk is read from.

struct Sampled {
    u32 token;
    float entropy, margin, log_probability;
};

struct Draw {
    float temperature, uniform;
};

// One block of 1024 threads per row. Greedy, or the inverse of the distribution at a temperature; the
// uniform number comes from the host, so that both devices draw alike. A row with a logit that
// is no number gets VOCAB as its token.
extern "C" __global__ void __launch_bounds__(1024) sample(const float *__restrict__ logits, const Draw *__restrict__ draws, Sampled *__restrict__ out) {
    __shared__ float shared[32];
    __shared__ u64 best_shared;
    __shared__ float prefix[1024];
    const float *row = logits + (u64)blockIdx.x * VOCAB;
    Draw draw = draws[blockIdx.x];
    float top = -INFINITY, bad = 0.f;
    for (u32 i = threadIdx.x; i < VOCAB; i += 1024) {
        top = fmaxf(top, row[i]);
        if (!isfinite(row[i])) bad = 1.f;
    }
    top = block_max(top, shared);
    bad = block_max(bad, shared);
    if (threadIdx.x == 0) best_shared = ~0ull;
    __syncthreads();
    float total = 0.f, weighted = 0.f, second = -INFINITY;
    u32 here = 0;
    for (u32 i = threadIdx.x; i < VOCAB; i += 1024) {
        float shifted = row[i] - top, weight = expf(shifted);
        total += weight;
        weighted += weight * shifted;
        if (row[i] == top) {
            atomicMin(&best_shared, (u64)i);
            here++;
        } else {
            second = fmaxf(second, row[i]);
        }
    }
    float tops = block_sum((float)here, shared);
    second = tops > 1.5f ? top : block_max(second, shared);
    total = block_sum(total, shared);
    weighted = block_sum(weighted, shared);
    u32 token = (u32)best_shared;
    if (draw.temperature > 0.f) {
        // Each thread sums a stretch of the vocabulary; the stretch in which the target falls is walked.
        u32 width = (VOCAB + 1023) / 1024, from = min(threadIdx.x * width, (u32)VOCAB), to = min(from + width, (u32)VOCAB);
        float sum = 0.f;
        for (u32 i = from; i < to; i++) sum += expf((row[i] - top) / draw.temperature);
        prefix[threadIdx.x] = sum;
        __syncthreads();
        for (u32 step = 1; step < 1024; step <<= 1) {
            float add = threadIdx.x >= step ? prefix[threadIdx.x - step] : 0.f;
            __syncthreads();
            prefix[threadIdx.x] += add;
            __syncthreads();
        }
        float target = draw.uniform * prefix[1023], before = threadIdx.x ? prefix[threadIdx.x - 1] : 0.f;
        if (before <= target && target < prefix[threadIdx.x]) {
            u32 i = from;
            for (float left = target - before; i + 1 < to; i++) {
                left -= expf((row[i] - top) / draw.temperature);
                if (left < 0.f) break;
            }
            best_shared = i;
        }
        __syncthreads();
        token = (u32)best_shared;
    }
    if (threadIdx.x == 0) {
        float log_total = logf(total);
        Sampled s;
        s.token = bad > 0.f ? VOCAB : token;
        s.entropy = fmaxf(log_total - weighted / total, 0.f);
        s.margin = (1.f - expf(second - top)) / total;
        s.log_probability = bad > 0.f ? 0.f : row[token] - top - log_total;
        out[blockIdx.x] = s;
    }
}

// Causal risk: r[t] = max(severity[t], gamma * r[t - 1]). One block of 1024 threads per sequence;
// `offsets` has one more entry than there are sequences. A scan: two neighbours (length a, risk x),
// (length b, risk y) join to (a + b, max(y, gamma^b x)).
extern "C" __global__ void __launch_bounds__(1024) risk_scan(const float *__restrict__ severity, const u32 *__restrict__ offsets, float gamma, float *__restrict__ risk) {
    __shared__ float scan[1024];
    __shared__ float carry;
    u32 from = offsets[blockIdx.x], to = offsets[blockIdx.x + 1];
    if (threadIdx.x == 0) carry = 0.f;
    for (u32 base = from; base < to; base += 1024) {
        u32 i = base + threadIdx.x;
        scan[threadIdx.x] = i < to ? severity[i] : 0.f;
        __syncthreads();
        float decay = gamma;
        for (u32 step = 1; step < 1024; step <<= 1) {
            float before = threadIdx.x >= step ? scan[threadIdx.x - step] * decay : 0.f;
            __syncthreads();
            scan[threadIdx.x] = fmaxf(scan[threadIdx.x], before);
            decay *= decay;
            __syncthreads();
        }
        float value = fmaxf(scan[threadIdx.x], carry * powf(gamma, (float)(threadIdx.x + 1)));
        if (i < to) risk[i] = value;
        __syncthreads();
        if (threadIdx.x == 1023) carry = value;
        __syncthreads();
    }
}
