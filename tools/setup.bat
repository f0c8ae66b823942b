@echo off
rem Makes .venv hold what the given requirements files name; does nothing when it already does.
rem With an NVIDIA GPU, torch is a CUDA build, and Triton is installed too.
rem Environment: PYTHON names the Python to build .venv with; TORCH_INDEX_URL another place to take torch from.
setlocal
rem "call" expands its line twice. A folder's name may hold a percent sign or a caret, so all paths here are relative.
cd /d "%~dp0.."
if not exist .venv\Scripts\python.exe goto find
for %%f in (%*) do (
    fc /b %%f .venv\.installed\%%f >nul 2>nul
    if errorlevel 1 goto find
)
exit /b 0

:find
set found=
set "check=import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))"
if defined PYTHON call :try "%PYTHON:"=%"
for %%v in (3.12 3.11 3.13 3.10) do if not defined found call :try py -%%v
for %%p in (python python3) do if not defined found call :try %%p
if defined found goto setup
echo Python 3.10, 3.11, 3.12 or 3.13 was not found; install one of them, or set PYTHON to its python.exe. 1>&2
exit /b 1

:setup
%found% tools\setup_env.py %* 1>&2
exit /b %errorlevel%

rem Sets "found" to this command if it starts a supported Python. "call", since a Python may be a .bat (pyenv).
:try
call %* -c "%check%" >nul 2>nul
if %errorlevel% equ 0 set found=%*
exit /b 0
