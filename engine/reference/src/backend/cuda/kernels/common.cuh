// Shared by all kernels. Sizes of the model come as macros when the kernels are compiled:
// HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM, VOCAB, PAGE (tokens of a page), the FORMAT_ numbers, and
// REAL: the type of weights and activations, bf16 or float. Layouts are those of `layout.rs`.
typedef REAL real;

#define GROUP (HEADS / KV_HEADS)
#define QKV_WIDTH ((HEADS + 2 * KV_HEADS) * HEAD_DIM)

// Where a page lies. Data: layer, side (0 keys, 1 values), head, token, number. Scales: layer,
// side, head; unused by 16-bit pages.
struct PageDesc {
    u8 *data;
    float *scales;
    u32 format; // FORMAT_F16, FORMAT_FP8 or FORMAT_INT8
    u32 unused;
};

// New tokens of one sequence in a step.
struct Span {
    u32 row;    // first row in the step
    u32 tokens; // rows
    u32 start;  // position of the first
    u32 pages;  // where its page numbers begin in the step's list
};

__device__ __forceinline__ u64 stripe(u32 layer, u32 side, u32 head) {
    return (u64)((layer * 2 + side) * KV_HEADS + head);
}

__device__ __forceinline__ float warp_sum(float x) {
    for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
    for (int offset = 16; offset > 0; offset >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}

// Sum over a block of at most 1024 threads; every thread gets it. `shared` has 32 floats.
__device__ __forceinline__ float block_sum(float x, float *shared) {
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = (blockDim.x + 31) >> 5;
    x = warp_sum(x);
    __syncthreads();
    if (lane == 0) shared[warp] = x;
    __syncthreads();
    return warp_sum(lane < warps ? shared[lane] : 0.f);
}

__device__ __forceinline__ float block_max(float x, float *shared) {
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = (blockDim.x + 31) >> 5;
    x = warp_max(x);
    __syncthreads();
    if (lane == 0) shared[warp] = x;
    __syncthreads();
    return warp_max(lane < warps ? shared[lane] : -INFINITY);
}
