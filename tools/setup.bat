@echo off
rem Makes .venv hold what the given requirements files name; does nothing when it already does.
rem Environment: PYTHON names the Python to build .venv with; TORCH_INDEX_URL another place to take torch from.
setlocal
set "root=%~dp0.."
if not exist "%root%\.venv\Scripts\python.exe" goto find
for %%f in (%*) do (
    fc /b "%root%\%%f" "%root%\.venv\.installed\%%f" >nul 2>nul || goto find
)
exit /b 0

:find
set "check=import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))"
if defined PYTHON (
    "%PYTHON%" -c "%check%" >nul 2>nul && (set found="%PYTHON%" & goto setup)
)
for %%v in (3.12 3.11 3.13 3.10) do (
    py -%%v -c "%check%" >nul 2>nul && (set "found=py -%%v" & goto setup)
)
for %%p in (python python3) do (
    %%p -c "%check%" >nul 2>nul && (set "found=%%p" & goto setup)
)
echo Python 3.10, 3.11, 3.12 or 3.13 was not found; install one of them, or set PYTHON to its python.exe. 1>&2
exit /b 1

:setup
%found% "%root%\tools\setup_env.py" %* 1>&2
exit /b %errorlevel%
