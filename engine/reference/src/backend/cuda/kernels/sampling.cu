// From logits to tokens, with the figures that risk is read from.

struct Sampled {
    u32 token;
    float entropy, margin, log_probability;
};

// How a token is drawn: temperature 0 takes the most likely. The uniform number comes from the
// host, so that both devices draw alike.
struct Draw {
    float temperature, top_p;
    double uniform;
};

#define BINS 2048
#define THREADS 1024
// Weights are summed as integers of this many parts of the largest: the order does not matter then.
#define PARTS 17592186044416.0 // 2^44

// A place in the order of tokens by falling logit, as far as it was narrowed down.
struct Search {
    u32 bin;         // of even width in the logit
    u32 key, known;  // the upper `known` bits of the order's key
    u64 before;      // weight of all tokens ahead
};

// Rises where the logit falls; all numbers are ordered, -0 after 0.
__device__ __forceinline__ u32 order_key(float x) {
    u32 bits = __float_as_uint(x);
    return bits & 0x80000000u ? bits : bits ^ 0x7fffffffu;
}

__device__ __forceinline__ u64 parts(float x, float top, float temperature) {
    return (u64)(exp((double)(x - top) / (double)temperature) * PARTS + 0.5);
}

// Finds the logit at which the weight of all tokens up to it, most likely first, reaches `need`, which
// is at most the weight of all. Returns its key and the weight ahead of it.
__device__ Search find(const float *row, float top, float temperature, float bins_per_unit, u64 need, u64 *histogram, u64 *scan, Search *found) {
    Search s = {0, 0, 0, 0};
#pragma unroll 1
    for (int level = 0; level < 4; level++) {
        for (u32 i = threadIdx.x; i < BINS; i += THREADS) histogram[i] = 0;
        __syncthreads();
        u32 bits = level == 3 ? 10 : 11, shift = 32 - s.known - bits;
#pragma unroll 1
        for (u32 i = threadIdx.x; i < VOCAB; i += THREADS) {
            float x = row[i];
            u32 bin = min((u32)((top - x) * bins_per_unit), (u32)(BINS - 1)), key = order_key(x);
            if (level == 0) {
                atomicAdd(&histogram[bin], parts(x, top, temperature));
            } else if (bin == s.bin && (s.known == 0 || key >> (32 - s.known) == s.key)) {
                atomicAdd(&histogram[key >> shift & ((1u << bits) - 1)], parts(x, top, temperature));
            }
        }
        __syncthreads();
        u64 two = histogram[2 * threadIdx.x] + histogram[2 * threadIdx.x + 1];
        scan[threadIdx.x] = two;
        __syncthreads();
        for (u32 step = 1; step < THREADS; step <<= 1) {
            u64 add = threadIdx.x >= step ? scan[threadIdx.x - step] : 0;
            __syncthreads();
            scan[threadIdx.x] += add;
            __syncthreads();
        }
        u64 end = s.before + scan[threadIdx.x], start = end - two;
        if (start < need && need <= end) {
            u64 middle = start + histogram[2 * threadIdx.x];
            u32 which = need <= middle ? 2 * threadIdx.x : 2 * threadIdx.x + 1;
            Search next = s;
            next.before = need <= middle ? start : middle;
            if (level == 0) {
                next.bin = which;
            } else {
                next.key = s.key << bits | which;
                next.known = s.known + bits;
            }
            *found = next;
        }
        __syncthreads();
        s = *found;
        __syncthreads();
    }
    return s;
}

// How many of the tokens that share the logit found are taken to reach `need`; at least one.
__device__ __forceinline__ u64 ties(const Search &s, u64 need, u64 weight) {
    u64 left = need - s.before;
    return weight ? (left + weight - 1) / weight : 1;
}

__device__ __forceinline__ float key_logit(u32 key) {
    return __uint_as_float(key & 0x80000000u ? key : key ^ 0x7fffffffu);
}

// Inverts the distribution at a temperature over the most likely tokens that have `top_p` together.
__device__ u32 draw_token(const float *row, float top, float bottom, Draw draw, u64 *histogram, u64 *scan, Search *found, u32 *counts) {
    float bins_per_unit = top > bottom ? (BINS - 1) / (top - bottom) : 0.f;
    u64 sum = 0;
#pragma unroll 1
    for (u32 i = threadIdx.x; i < VOCAB; i += THREADS) sum += parts(row[i], top, draw.temperature);
    if (threadIdx.x == 0) scan[0] = 0;
    __syncthreads();
    atomicAdd(&scan[0], sum);
    __syncthreads();
    u64 mass = scan[0];
    __syncthreads();
    if (draw.top_p < 1.f) {
        double wanted = ceil((double)draw.top_p * (double)mass);
        u64 need = wanted < 1.0 ? 1 : min((u64)wanted, mass);
        Search s = find(row, top, draw.temperature, bins_per_unit, need, histogram, scan, found);
        u64 weight = parts(key_logit(s.key), top, draw.temperature);
        mass = s.before + ties(s, need, weight) * weight;
    }
    u64 need = min((u64)(draw.uniform * (double)mass) + 1, mass);
    Search s = find(row, top, draw.temperature, bins_per_unit, need, histogram, scan, found);
    u64 rank = ties(s, need, parts(key_logit(s.key), top, draw.temperature));
    // The token of that rank among those of the same logit, by number: each thread counts a stretch.
    u32 width = (VOCAB + THREADS - 1) / THREADS, from = min(threadIdx.x * width, (u32)VOCAB), to = min(from + width, (u32)VOCAB), here = 0;
    for (u32 i = from; i < to; i++) here += order_key(row[i]) == s.key;
    counts[threadIdx.x] = here;
    __syncthreads();
    if (threadIdx.x == 0) {
        u64 left = rank;
        u32 thread = 0;
        while (thread + 1 < THREADS && left > counts[thread]) left -= counts[thread++];
        u32 i = thread * width, last = i;
        for (u32 end = min(i + width, (u32)VOCAB); i < end && left > 0; i++)
            if (order_key(row[i]) == s.key) left--, last = i;
        found->key = last;
    }
    __syncthreads();
    return found->key;
}

// One block of 1024 threads per row. A row with a logit that is no number gets VOCAB as its token.
KERNEL __launch_bounds__(THREADS) sample(const float *__restrict__ logits, const Draw *__restrict__ draws, Sampled *__restrict__ out) {
    __shared__ float shared[32];
    __shared__ u32 best_shared;
    __shared__ u64 histogram[BINS], scan[THREADS];
    __shared__ u32 counts[THREADS];
    __shared__ Search found;
    const float *row = logits + (u64)blockIdx.x * VOCAB;
    Draw draw = draws[blockIdx.x];
    float top = -INFINITY, bottom = INFINITY, bad = 0.f;
    // Several reads at once: one block has the whole row to read.
#pragma unroll 8
    for (u32 i = threadIdx.x; i < VOCAB; i += THREADS) {
        float x = row[i];
        top = fmaxf(top, x);
        bottom = fminf(bottom, x);
        if (!(fabsf(x) < INFINITY)) bad = 1.f;
    }
    top = block_max(top, shared);
    bottom = -block_max(-bottom, shared);
    bad = block_max(bad, shared);
    if (bad > 0.f) {
        if (threadIdx.x == 0) out[blockIdx.x] = {VOCAB, 0.f, 0.f, 0.f};
        return;
    }
    if (threadIdx.x == 0) best_shared = VOCAB;
    __syncthreads();
    float total = 0.f, weighted = 0.f, second = -INFINITY;
    u32 here = 0;
#pragma unroll 8
    for (u32 i = threadIdx.x; i < VOCAB; i += THREADS) {
        float shifted = row[i] - top, weight = expf(shifted);
        total += weight;
        weighted += weight * shifted;
        if (row[i] == top) {
            atomicMin(&best_shared, i);
            here++;
        } else {
            second = fmaxf(second, row[i]);
        }
    }
    float tops = block_sum((float)here, shared);
    second = block_max(second, shared);
    if (tops > 1.5f) second = top;
    total = block_sum(total, shared);
    weighted = block_sum(weighted, shared);
    u32 token = best_shared;
    __syncthreads();
    if (draw.temperature > 0.f) token = draw_token(row, top, bottom, draw, histogram, scan, &found, counts);
    if (threadIdx.x == 0) {
        float log_total = logf(total);
        out[blockIdx.x] = {token, fmaxf(log_total - weighted / total, 0.f), (1.f - expf(second - top)) / total, row[token] - top - log_total};
    }
}

// Causal risk: r[t] = max(severity[t], gamma * r[t - 1]). One block of 1024 threads per sequence;
// `offsets` has one more entry than there are sequences. A scan: two neighbours (length a, risk x),
// (length b, risk y) join to (a + b, max(y, gamma^b x)).
KERNEL __launch_bounds__(THREADS) risk_scan(const float *__restrict__ severity, const u32 *__restrict__ offsets, float gamma, float *__restrict__ risk) {
    __shared__ float scan[THREADS];
    __shared__ float carry;
    u32 from = offsets[blockIdx.x], to = offsets[blockIdx.x + 1];
    if (threadIdx.x == 0) carry = 0.f;
    for (u32 base = from; base < to; base += THREADS) {
        u32 i = base + threadIdx.x;
        scan[threadIdx.x] = i < to ? severity[i] : 0.f;
        __syncthreads();
        float decay = gamma;
        for (u32 step = 1; step < THREADS; step <<= 1) {
            float before = threadIdx.x >= step ? scan[threadIdx.x - step] * decay : 0.f;
            __syncthreads();
            scan[threadIdx.x] = fmaxf(scan[threadIdx.x], before);
            decay *= decay;
            __syncthreads();
        }
        float value = fmaxf(scan[threadIdx.x], carry * powf(gamma, (float)(threadIdx.x + 1)));
        if (i < to) risk[i] = value;
        __syncthreads();
        if (threadIdx.x == THREADS - 1) carry = value;
        __syncthreads();
    }
}
