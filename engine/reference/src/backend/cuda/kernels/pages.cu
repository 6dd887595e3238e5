// Stores full pages again in eight bits. One block per stripe (layer, side, head) and page.
extern "C" __global__ void quantise_pages(const PageDesc *__restrict__ from, PageDesc *__restrict__ to) {
    __shared__ float shared[32];
    PageDesc source = from[blockIdx.y], target = to[blockIdx.y];
    const u32 count = PAGE * HEAD_DIM;
    const __half *numbers = (const __half *)source.data + (u64)blockIdx.x * count;
    float largest = 0.f;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) largest = fmaxf(largest, fabsf(__half2float(numbers[i])));
    largest = block_max(largest, shared);
    float top = target.format == FORMAT_FP8 ? 448.f : 127.f;
    float scale = largest > 0.f ? largest / top : 1.f;
    if (threadIdx.x == 0) target.scales[blockIdx.x] = scale;
    u8 *out = target.data + (u64)blockIdx.x * count;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) {
        float x = __half2float(numbers[i]) / scale;
        if (target.format == FORMAT_FP8) {
            out[i] = __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
        } else {
            out[i] = (u8)(signed char)fminf(fmaxf(rintf(x), -127.f), 127.f);
        }
    }
}
