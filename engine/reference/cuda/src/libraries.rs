//! Finding the driver, NVRTC and cuBLASLt at run time: first where the loader looks, then where
//! toolkits and Python packages put them.

use crate::error::CudaError;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A library that is loaded at run time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Library {
    /// The driver: `libcuda`.
    Driver,
    /// The compiler: NVRTC.
    Compiler,
    /// Matrix products: cuBLASLt.
    Blas,
}

/// More folders to look in, separated as in `PATH`.
pub const FOLDERS: &str = "WINDTUNNEL_CUDA_LIBRARIES";

impl Library {
    const fn stem(self) -> &'static str {
        match self {
            Self::Driver => "libcuda.so",
            Self::Compiler => "libnvrtc.so",
            Self::Blas => "libcublasLt.so",
        }
    }

    /// What it loads by name itself, beside it.
    const fn companion(self) -> Option<&'static str> {
        match self {
            Self::Compiler => Some("libnvrtc-builtins.so"),
            _ => None,
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::Driver => "install the NVIDIA driver, or run on the CPU",
            Self::Compiler => {
                "install NVRTC of CUDA 12.8 or later (in Python: nvidia-cuda-nvrtc), or name its folder in WINDTUNNEL_CUDA_LIBRARIES"
            }
            Self::Blas => {
                "install cuBLAS of CUDA 12.8 or later (in Python: nvidia-cublas), or name its folder in WINDTUNNEL_CUDA_LIBRARIES"
            }
        }
    }

    fn present(self) -> bool {
        // SAFETY: loading these libraries runs their own initialisers only, which NVIDIA documents
        // as free of preconditions; nothing is called.
        unsafe {
            match self {
                Self::Driver => cudarc::driver::sys::is_culib_present(),
                Self::Compiler => cudarc::nvrtc::sys::is_culib_present(),
                Self::Blas => cudarc::cublaslt::sys::is_culib_present(),
            }
        }
    }

    /// Makes sure that the library can be called.
    ///
    /// # Errors
    /// If it is nowhere: with the places that were looked at.
    pub fn find(self) -> Result<(), CudaError> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.present() {
            return Ok(());
        }
        let folders = folders();
        for folder in &folders {
            if let Some(companion) = self.companion() {
                open_all(folder, companion);
            }
            // Once it is loaded by its path, the loader finds it by its name.
            if open_all(folder, self.stem()) && self.present() {
                return Ok(());
            }
        }
        let places: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
        Err(CudaError::Missing {
            what: format!("the library {}", self.stem()),
            looked: format!(
                "looked where the loader looks (LD_LIBRARY_PATH, the system's folders) and in {}",
                if places.is_empty() {
                    "no other folder".to_owned()
                } else {
                    places.join(", ")
                }
            ),
            remedy: self.remedy().to_owned(),
        })
    }
}

/// Loads every file of a folder whose name begins so, for good; whether there was one.
fn open_all(folder: &Path, stem: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return false;
    };
    let mut found = false;
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with(stem) {
            continue;
        }
        // SAFETY: as for `present`: NVIDIA's libraries, whose initialisers need nothing.
        if let Ok(library) = unsafe { libloading::Library::new(entry.path()) } {
            std::mem::forget(library);
            found = true;
        }
    }
    found
}

/// Where toolkits and Python packages put libraries, as far as these folders exist.
fn folders() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name);
    let mut all: Vec<PathBuf> = Vec::new();
    if let Some(list) = variable(FOLDERS) {
        all.extend(std::env::split_paths(&list));
    }
    let mut homes: Vec<PathBuf> = ["CUDA_HOME", "CUDA_PATH"]
        .iter()
        .filter_map(|n| variable(n).map(PathBuf::from))
        .collect();
    homes.push("/usr/local/cuda".into());
    for home in homes {
        all.extend(["lib64", "lib", "targets/x86_64-linux/lib"].map(|l| home.join(l)));
    }
    let mut roots: Vec<PathBuf> = ["VIRTUAL_ENV", "CONDA_PREFIX"]
        .iter()
        .filter_map(|n| variable(n).map(PathBuf::from))
        .collect();
    if let Some(home) = variable("HOME") {
        roots.push(PathBuf::from(home).join(".local"));
    }
    roots.extend(["/opt/conda", "/usr/local", "/usr", "/opt/venv"].map(PathBuf::from));
    for root in roots {
        for python in children(&root.join("lib"), "python3") {
            for packages in ["site-packages", "dist-packages"] {
                for package in children(&python.join(packages).join("nvidia"), "") {
                    all.push(package.join("lib"));
                }
            }
        }
    }
    all.retain(|f| f.is_dir());
    all.dedup();
    all
}

fn children(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut all: Vec<PathBuf> = entries
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(prefix))
        .map(|e| e.path())
        .collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_places_and_a_remedy() {
        for library in [Library::Driver, Library::Compiler, Library::Blas] {
            match library.find() {
                Ok(()) => assert!(library.present()),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains(library.stem()), "{text}");
                    assert!(text.contains("LD_LIBRARY_PATH"), "{text}");
                    assert!(text.contains("install"), "{text}");
                }
            }
        }
    }
}
