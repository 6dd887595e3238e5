// Matrix products of few rows, which only stream the weights; weights from a seed; and what measures memory.

// Uniform bits from a counter: the final mix of splitmix64.
__device__ __forceinline__ u64 mix(u64 z) {
    z += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// Numbers near normal: the sum of four uniforms, as on the host. With deviation 0 all are 1.
KERNEL fill(real *__restrict__ to, u64 count, u64 seed, float deviation) {
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (u64)gridDim.x * blockDim.x) {
        u64 bits = mix(seed ^ mix(i));
        float sum = 0.f;
        for (int k = 0; k < 4; k++) sum += (float)(bits >> (16 * k) & 0xffff) * (1.f / 65536.f) - (0.5f - 0.5f / 65536.f);
        store(&to[i], deviation == 0.f ? 1.f : sum * 1.7320508f * deviation);
    }
}

// Reads everything once; what it finds goes to `out` so that nothing is left out.
KERNEL read_all(const uint4 *__restrict__ from, u64 count, u32 *__restrict__ out) {
    u32 seen = 0;
    u64 step = (u64)gridDim.x * blockDim.x, i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    for (; i + 3 * step < count; i += 4 * step) {
        uint4 a = stream_load(from + i), b = stream_load(from + i + step), c = stream_load(from + i + 2 * step), d = stream_load(from + i + 3 * step);
        seen ^= a.x ^ a.y ^ a.z ^ a.w ^ b.x ^ b.y ^ b.z ^ b.w ^ c.x ^ c.y ^ c.z ^ c.w ^ d.x ^ d.y ^ d.z ^ d.w;
    }
    for (; i < count; i += step) {
        uint4 a = stream_load(from + i);
        seen ^= a.x ^ a.y ^ a.z ^ a.w;
    }
    if (seen == 0x9e3779b9u) out[0] = seen;
}

KERNEL copy_all(const uint4 *__restrict__ from, u64 count, uint4 *__restrict__ to) {
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) to[i] = stream_load(from + i);
}

#ifdef BF16
// out[row, o] (+)= sum over k of x[row, k] weights[o, k], for at most 8 COLUMNS rows. A block has 16
// outputs and all rows; its 8 warps take the sum over k in turns of 128. Every lane reads whole
// 16-byte pieces, straight into the operands of the tensor cores: as both operands take the
// same order of k, any order is right. Grid: outputs / 16. `inputs` is a multiple of 8.
#define WARPS 8
#define CHUNKS 4
// `first` and `second` are the rows of weights that lanes r = 0 begin at; sums of a warp go to `shared`.
template <int COLUMNS>
__device__ __forceinline__ void skinny_sums(const real *__restrict__ weights, const real *__restrict__ x, u32 rows, u32 last, u32 inputs, u32 first,
                                            u32 second, float (&shared)[WARPS][16][8 * COLUMNS]) {
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, r = lane >> 2, c = lane & 3;
    u32 chunks = (inputs + 31) / 32;
    const uint4 zero = {0, 0, 0, 0};
    const uint4 *low = (const uint4 *)(weights + (u64)min(first + r, last) * inputs) + c;
    const uint4 *high = (const uint4 *)(weights + (u64)min(second + r, last) * inputs) + c;
    float sum[COLUMNS][4];
#pragma unroll
    for (int t = 0; t < COLUMNS; t++) sum[t][0] = sum[t][1] = sum[t][2] = sum[t][3] = 0.f;
    for (u32 chunk = warp * CHUNKS; chunk < chunks; chunk += WARPS * CHUNKS) {
        uint4 a[CHUNKS], b[CHUNKS];
#pragma unroll
        for (int u = 0; u < CHUNKS; u++) {
            bool in = (chunk + u) * 32 + c * 8 < inputs;
            a[u] = in ? stream_load(low + (chunk + u) * 4) : zero;
            b[u] = in ? stream_load(high + (chunk + u) * 4) : zero;
        }
#pragma unroll
        for (int u = 0; u < CHUNKS; u++) {
            bool in = (chunk + u) * 32 + c * 8 < inputs;
            u32 a0[4] = {a[u].x, b[u].x, a[u].y, b[u].y}, a1[4] = {a[u].z, b[u].z, a[u].w, b[u].w};
#pragma unroll
            for (int t = 0; t < COLUMNS; t++) {
                u32 row = 8 * t + r;
                uint4 v = in && row < rows ? *((const uint4 *)(x + (u64)row * inputs) + c + (chunk + u) * 4) : zero;
                mma_bf16(sum[t], a0, v.x, v.y);
                mma_bf16(sum[t], a1, v.z, v.w);
            }
        }
    }
#pragma unroll
    for (int t = 0; t < COLUMNS; t++)
#pragma unroll
        for (int i = 0; i < 4; i++) shared[warp][r + 8 * (i >> 1)][8 * t + 2 * c + (i & 1)] = sum[t][i];
    __syncthreads();
}

template <int COLUMNS, typename OUT, bool ADD>
__device__ __forceinline__ void skinny(const real *__restrict__ weights, const real *__restrict__ x, OUT *__restrict__ out, u32 rows, u32 outputs,
                                       u32 inputs, u32 stride, float (&shared)[WARPS][16][8 * COLUMNS]) {
    u32 base = blockIdx.x * 16;
    skinny_sums<COLUMNS>(weights, x, rows, outputs - 1, inputs, base, base + 8, shared);
    for (u32 i = threadIdx.x; i < 16 * 8 * COLUMNS; i += 32 * WARPS) {
        u32 output = i % 16, row = i / 16;
        float total = 0.f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) total += shared[w][output][row];
        if (row < rows && base + output < outputs) {
            OUT *to = &out[(u64)row * stride + base + output];
            store(to, ADD ? to_float(*to) + total : total);
        }
    }
}

#define SKINNY(name, tiles, type, add)                                                                                                      \
    KERNEL __launch_bounds__(32 * WARPS) name(const real *__restrict__ weights, const real *__restrict__ x, type *__restrict__ out, u32 rows, \
                                              u32 outputs, u32 inputs, u32 stride) {                                                        \
        __shared__ float shared[WARPS][16][8 * tiles];                                                                                      \
        skinny<tiles, type, add>(weights, x, out, rows, outputs, inputs, stride, shared);                                                   \
    }
SKINNY(skinny_8, 1, real, false)
SKINNY(skinny_8_float, 1, float, false)
SKINNY(skinny_8_add, 1, float, true)
SKINNY(skinny_16, 2, real, false)
SKINNY(skinny_16_float, 2, float, false)
SKINNY(skinny_16_add, 2, float, true)

// y = silu(gate) * up of the products with both halves of the weights, `width` rows each, at once: a block has
// 8 of each. Grid: width / 8.
template <int COLUMNS>
__device__ __forceinline__ void skinny_gated(const real *__restrict__ weights, const real *__restrict__ x, real *__restrict__ y, u32 rows, u32 width,
                                             u32 inputs, float (&shared)[WARPS][16][8 * COLUMNS]) {
    u32 base = blockIdx.x * 8;
    skinny_sums<COLUMNS>(weights, x, rows, 2 * width - 1, inputs, base, width + base, shared);
    for (u32 i = threadIdx.x; i < 8 * 8 * COLUMNS; i += 32 * WARPS) {
        u32 output = i % 8, row = i / 8;
        float gate = 0.f, up = 0.f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) gate += shared[w][output][row], up += shared[w][output + 8][row];
        if (row < rows && base + output < width) store(&y[(u64)row * width + base + output], gate / (1.f + __expf(-gate)) * up);
    }
}

#define GATED(name, columns)                                                                                                                 \
    KERNEL __launch_bounds__(32 * WARPS) name(const real *__restrict__ weights, const real *__restrict__ x, real *__restrict__ y, u32 rows, \
                                              u32 width, u32 inputs) {                                                                       \
        __shared__ float shared[WARPS][16][8 * columns];                                                                                     \
        skinny_gated<columns>(weights, x, y, rows, width, inputs, shared);                                                                   \
    }
GATED(gated_8, 1)
GATED(gated_16, 2)
#endif
